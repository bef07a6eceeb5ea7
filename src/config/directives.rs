//! Every directive of SRS by its path: what SRS's grammar and environment may name.
//!
//! The settings table says what this version does; this list only says what exists. A directive
//! with a row of its path in the table is implemented; without one it is refused by name where it
//! asks for something, so adding the row is all there is to do when a feature comes.

use std::sync::LazyLock;

use super::{SECTIONS, rows};

/// What a directive looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Has directives of its own in braces.
    Block,
    /// A switch that SRS takes for on unless it says `off`.
    On,
    /// A switch that SRS takes for off unless it says `on`.
    Off,
    /// Words.
    Value,
    /// Was removed from SRS: accepted, means nothing.
    Gone,
}

/// One directive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directive {
    pub form: Form,
    /// Names from the root on, joined by dots; the names of vhosts and engines left out.
    pub path: &'static str,
    /// How the environment names it: `+` by rule, `-` not at all, else the names.
    env: &'static str,
    /// SRS's default, where writing it asks for nothing.
    pub default: Option<&'static str>,
}

impl Directive {
    /// True when it asks for something with this word, instead of stating what is so anyhow.
    pub fn asks(&self, word: &str) -> bool {
        match self.form {
            Form::Off => word == "on",
            // Off by itself is what this version does with a feature that it does not have.
            Form::On if self.path.ends_with(".enabled") => word != "off",
            Form::On => word == "off",
            Form::Value => !same(word, self.default),
            Form::Block | Form::Gone => false,
        }
    }

    /// The blocks around it, from the inside out, that have a switch; its own if it is one counts
    /// for what stands beside it only.
    pub fn switches(&self) -> impl Iterator<Item = &'static Directive> {
        let ends = self.path.rmatch_indices('.').map(|(end, _)| &self.path[..end]);
        ends.filter_map(|block| find(&format!("{block}.enabled")))
            .filter(|switch| switch.path != self.path)
    }

    /// The variables that stand for it.
    pub fn env_names(&self) -> Vec<String> {
        match self.env {
            "-" => Vec::new(),
            "+" => vec![format!("SRS_{}", self.path.to_ascii_uppercase().replace('.', "_"))],
            names => names.split(',').map(String::from).collect(),
        }
    }
}

/// True when a word is the default, however a number is written.
fn same(word: &str, default: Option<&str>) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    default.is_some_and(|default| {
        word == default || number(word).is_some_and(|word| Some(word) == number(default))
    })
}

/// The setting of a directive whose path is not SRS's.
pub(super) fn alias(path: &str) -> Option<&'static str> {
    ALIASES.iter().find(|(srs, _)| *srs == path).map(|(_, ours)| *ours)
}

/// Directives whose setting has another path here.
const ALIASES: &[(&str, &str)] = &[
    ("chunk_size", "vhost.chunk_size"),
    ("inotify_auto_reload", "config_watch"),
    ("rtmp.chunk_size", "vhost.chunk_size"),
    ("rtmp.listen", "listen"),
    ("srs_log_file", "log.file"),
    ("srs_log_level", "log.level"),
    ("srs_log_level_v2", "log.level"),
    ("srs_log_tank", "log.tank"),
];

/// The directives of SRS that are the setting at this path.
pub(super) fn of_setting(path: &str) -> impl Iterator<Item = &'static str> {
    let named =
        move |directive: &&Directive| alias(directive.path).unwrap_or(directive.path) == path;
    all().iter().filter(named).map(|directive| directive.path)
}

/// Variables of SRS that are no directives.
const OTHER_VARIABLES: &[&str] = &["SRS_DEVICE_IP", "SRS_PLATFORM", "SRS_REGION", "SRS_SOURCE"];

/// All directives.
pub(super) fn all() -> &'static [Directive] {
    static ALL: LazyLock<Vec<Directive>> = LazyLock::new(|| {
        let lines = LIST.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| parse(line).expect("a line of the list")).collect()
    });
    &ALL
}

fn parse(line: &'static str) -> Option<Directive> {
    let mut words = line.split_whitespace();
    let form = match words.next()? {
        "block" => Form::Block,
        "on" => Form::On,
        "off" => Form::Off,
        "value" => Form::Value,
        "gone" => Form::Gone,
        _ => return None,
    };
    Some(Directive { form, path: words.next()?, env: words.next()?, default: words.next() })
}

/// The directive that a variable stands for.
pub(super) fn of_variable(name: &str) -> Option<&'static Directive> {
    all().iter().find(|directive| directive.env_names().iter().any(|env| env == name))
}

/// True when settings stand in the block of this path.
pub(super) fn has_rows(block: &str) -> bool {
    let inside = |path: &str| path.strip_prefix(block).is_some_and(|rest| rest.starts_with('.'));
    rows().any(|row| inside(row.path))
}

/// The directive at this path.
pub(super) fn find(path: &str) -> Option<&'static Directive> {
    all().iter().find(|directive| directive.path == path)
}

fn is_implemented(path: &str) -> bool {
    rows().any(|row| row.path == path) || SECTIONS.iter().any(|section| section.path == path)
}

/// True when SRS has something at this path that the settings do not have.
pub(super) fn is_known(path: &str) -> bool {
    find(path).is_some() && !is_implemented(path)
}

/// What may stand in a vhost of SRS.
pub(super) fn of_vhost() -> impl Iterator<Item = &'static str> {
    let inside = all().iter().filter_map(|directive| directive.path.strip_prefix("vhost."));
    inside.filter(|path| !path.contains('.'))
}

/// The variables of SRS that no row reads.
pub(super) fn unread_variables() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let names = all().iter().flat_map(Directive::env_names);
        let names = names.chain(OTHER_VARIABLES.iter().map(|name| name.to_string()));
        names.filter(|name| !rows().any(|row| row.env.contains(&name.as_str()))).collect()
    });
    &NAMES
}

const LIST: &str = "
    value listen +
    value pid + ./objs/srs.pid
    value chunk_size - 60000
    value ff_log_dir + ./objs
    value ff_log_level + info
    value srs_log_tank SRS_LOG_TANK,SRS_SRS_LOG_TANK file
    value srs_log_level SRS_LOG_LEVEL,SRS_SRS_LOG_LEVEL trace
    value srs_log_level_v2 SRS_LOG_LEVEL_V2,SRS_SRS_LOG_LEVEL_V2
    value srs_log_file SRS_LOG_FILE,SRS_SRS_LOG_FILE ./objs/srs.log
    value max_connections + 1000
    on daemon +
    off asprocess +
    off utc_time +
    value pithy_print_ms + 10000
    value work_dir + ./
    on empty_ip_ok +
    off in_docker +
    on disable_daemon_for_docker +
    off inotify_auto_reload +
    on auto_reload_for_docker +
    value grace_start_wait + 2300
    value grace_final_wait + 3200
    off force_grace_quit +
    value tcmalloc_release_rate + 0.8
    off query_latest_version +
    value first_wait_for_qlv + 300
    value server_id +
    off is_full -
    value include -
    block threads -
    gone threads.interval + 5
    block circuit_breaker -
    on circuit_breaker.enabled +
    value circuit_breaker.high_threshold + 90
    value circuit_breaker.high_pulse + 2
    value circuit_breaker.critical_threshold + 95
    value circuit_breaker.critical_pulse + 1
    value circuit_breaker.dying_threshold + 99
    value circuit_breaker.dying_pulse + 5
    block heartbeat -
    off heartbeat.enabled +
    value heartbeat.interval + 10
    value heartbeat.url + http://127.0.0.1:8085/api/v1/servers
    value heartbeat.device_id +
    off heartbeat.summaries +
    off heartbeat.ports +
    block stats -
    on stats.enabled -
    value stats.network - 0
    value stats.disk -
    block http_api -
    off http_api.enabled +
    value http_api.listen + 1985
    on http_api.crossdomain +
    block http_api.raw_api -
    off http_api.raw_api.enabled +
    off http_api.raw_api.allow_reload +
    off http_api.raw_api.allow_query -
    off http_api.raw_api.allow_update -
    block http_api.auth -
    off http_api.auth.enabled +
    value http_api.auth.username +
    value http_api.auth.password +
    block http_api.https -
    off http_api.https.enabled +
    value http_api.https.listen +
    value http_api.https.key + ./conf/server.key
    value http_api.https.cert + ./conf/server.crt
    block http_server -
    off http_server.enabled +
    value http_server.listen + 8080
    value http_server.dir + ./objs/nginx/html
    on http_server.crossdomain +
    block http_server.https -
    off http_server.https.enabled +
    value http_server.https.listen + 8088
    value http_server.https.key + ./conf/server.key
    value http_server.https.cert + ./conf/server.crt
    block srt_server -
    off srt_server.enabled +
    value srt_server.listen + 10080
    value srt_server.maxbw + -1
    value srt_server.mss + 1500
    value srt_server.connect_timeout + 3000
    value srt_server.peer_idle_timeout + 10000
    value srt_server.default_app + live
    value srt_server.peerlatency + 0
    value srt_server.recvlatency + 120
    value srt_server.latency + 120
    on srt_server.tsbpdmode +
    on srt_server.tlpktdrop +
    value srt_server.sendbuf + 12058624
    value srt_server.recvbuf + 12058624
    value srt_server.passphrase +
    value srt_server.pbkeylen + 0
    value srt_server.payloadsize + 1316
    on srt_server.sei_filter +
    gone srt_server.mix_correct -
    gone srt_server.tlpkdrop -
    value srt_server.default_streamid +
    value srt_server.default_mode +
    block rtc_server -
    off rtc_server.enabled +
    value rtc_server.listen + 8000
    block rtc_server.tcp -
    off rtc_server.tcp.enabled +
    value rtc_server.tcp.listen + 8000
    value rtc_server.protocol + udp
    value rtc_server.candidate + *
    on rtc_server.use_auto_detect_network_ip +
    value rtc_server.ip_family + ipv4
    on rtc_server.api_as_candidates +
    on rtc_server.resolve_api_domain +
    off rtc_server.keep_api_domain +
    on rtc_server.ecdsa +
    on rtc_server.encrypt +
    value rtc_server.reuseport + 1
    off rtc_server.merge_nalus +
    block rtc_server.black_hole -
    off rtc_server.black_hole.enabled +
    value rtc_server.black_hole.addr +
    gone rtc_server.perf_stat -
    gone rtc_server.queue_length -
    block exporter -
    off exporter.enabled +
    value exporter.listen + 9972
    value exporter.label +
    value exporter.tag +
    block tencentcloud_cls -
    gone tencentcloud_cls.enabled +
    gone tencentcloud_cls.debug_logging +
    gone tencentcloud_cls.label +
    gone tencentcloud_cls.tag +
    gone tencentcloud_cls.secret_id +
    gone tencentcloud_cls.secret_key +
    gone tencentcloud_cls.endpoint +
    gone tencentcloud_cls.topic_id +
    gone tencentcloud_cls.stat_heartbeat +
    gone tencentcloud_cls.heartbeat_ratio + 1
    gone tencentcloud_cls.stat_streams +
    gone tencentcloud_cls.streams_ratio + 1
    block tencentcloud_apm -
    gone tencentcloud_apm.enabled +
    gone tencentcloud_apm.team +
    gone tencentcloud_apm.token +
    gone tencentcloud_apm.endpoint +
    gone tencentcloud_apm.service_name + srs-server
    gone tencentcloud_apm.debug_logging +
    block stream_caster -
    off stream_caster.enabled -
    value stream_caster.caster -
    value stream_caster.output -
    value stream_caster.listen - 0
    block stream_caster.sip -
    on stream_caster.sip.enabled -
    value stream_caster.sip.listen - 5060
    value stream_caster.sip.timeout - 60
    value stream_caster.sip.reinvite - 5
    value stream_caster.sip.candidate - *
    gone stream_caster.rtp_port_min -
    gone stream_caster.rtp_port_max -
    gone stream_caster.host -
    block vhost -
    on vhost.enabled -
    off vhost.min_latency +
    off vhost.tcp_nodelay +
    value vhost.chunk_size +
    value vhost.in_ack_size + 0
    value vhost.out_ack_size + 2500000
    block vhost.play -
    on vhost.play.gop_cache +
    value vhost.play.gop_cache_max_frames + 2500
    value vhost.play.queue_length + 30
    value vhost.play.time_jitter + full
    off vhost.play.atc +
    off vhost.play.atc_auto +
    off vhost.play.mix_correct +
    value vhost.play.mw_latency + 350
    value vhost.play.mw_msgs +
    value vhost.play.send_min_interval + 0
    off vhost.play.reduce_sequence_header +
    block vhost.publish -
    off vhost.publish.mr +
    value vhost.publish.mr_latency + 350
    value vhost.publish.firstpkt_timeout + 20000
    value vhost.publish.normal_timeout + 5000
    on vhost.publish.parse_sps +
    on vhost.publish.try_annexb_first +
    value vhost.publish.kickoff_for_idle + 0
    block vhost.cluster -
    value vhost.cluster.mode - local
    value vhost.cluster.origin -
    off vhost.cluster.token_traverse -
    value vhost.cluster.vhost - [vhost]
    on vhost.cluster.debug_srs_upnode -
    off vhost.cluster.origin_cluster -
    value vhost.cluster.coworkers -
    value vhost.cluster.protocol - rtmp
    off vhost.cluster.follow_client -
    block vhost.forward -
    off vhost.forward.enabled +
    value vhost.forward.destination +
    value vhost.forward.backend +
    block vhost.refer -
    off vhost.refer.enabled -
    value vhost.refer.all -
    value vhost.refer.publish -
    value vhost.refer.play -
    block vhost.security -
    off vhost.security.enabled -
    value vhost.security.allow -
    value vhost.security.deny -
    block vhost.http_static -
    off vhost.http_static.enabled +
    value vhost.http_static.mount + [vhost]/
    value vhost.http_static.dir + ./objs/nginx/html
    block vhost.http_remux -
    off vhost.http_remux.enabled +
    value vhost.http_remux.fast_cache + 0
    on vhost.http_remux.drop_if_not_match +
    on vhost.http_remux.has_audio +
    on vhost.http_remux.has_video +
    on vhost.http_remux.guess_has_av +
    value vhost.http_remux.mount + [vhost]/[app]/[stream].flv
    block vhost.http_hooks -
    off vhost.http_hooks.enabled +
    value vhost.http_hooks.on_connect +
    value vhost.http_hooks.on_close +
    value vhost.http_hooks.on_publish +
    value vhost.http_hooks.on_unpublish +
    value vhost.http_hooks.on_play +
    value vhost.http_hooks.on_stop +
    value vhost.http_hooks.on_dvr +
    value vhost.http_hooks.on_hls +
    value vhost.http_hooks.on_hls_notify +
    block vhost.exec -
    off vhost.exec.enabled -
    value vhost.exec.publish -
    block vhost.dash -
    off vhost.dash.enabled +
    value vhost.dash.dash_fragment + 10
    value vhost.dash.dash_update_period + 5
    value vhost.dash.dash_timeshift + 300
    value vhost.dash.dash_path + ./objs/nginx/html
    value vhost.dash.dash_mpd_file + [app]/[stream].mpd
    value vhost.dash.dash_window_size + 5
    on vhost.dash.dash_cleanup +
    value vhost.dash.dash_dispose + 120
    block vhost.hls -
    off vhost.hls.enabled +
    value vhost.hls.hls_fragment + 10
    value vhost.hls.hls_td_ratio + 1.0
    value vhost.hls.hls_aof_ratio + 2.1
    value vhost.hls.hls_window + 60
    value vhost.hls.hls_on_error + continue
    value vhost.hls.hls_path + ./objs/nginx/html
    value vhost.hls.hls_m3u8_file + [app]/[stream].m3u8
    value vhost.hls.hls_ts_file + [app]/[stream]-[seq].ts
    off vhost.hls.hls_ts_floor +
    value vhost.hls.hls_entry_prefix +
    gone vhost.hls.hls_acodec + aac
    gone vhost.hls.hls_vcodec + h264
    on vhost.hls.hls_cleanup +
    value vhost.hls.hls_dispose + 120
    on vhost.hls.hls_wait_keyframe +
    value vhost.hls.hls_nb_notify + 64
    on vhost.hls.hls_dts_directly +
    off vhost.hls.hls_keys +
    value vhost.hls.hls_fragments_per_key + 5
    value vhost.hls.hls_key_file + [app]/[stream]-[seq].key
    value vhost.hls.hls_key_file_path +
    value vhost.hls.hls_key_url +
    on vhost.hls.hls_ctx +
    on vhost.hls.hls_ts_ctx +
    gone vhost.hls.hls_storage -
    gone vhost.hls.hls_mount -
    off vhost.hls.hls_use_fmp4 +
    value vhost.hls.hls_fmp4_file + [app]/[stream]-[seq].m4s
    value vhost.hls.hls_init_file + [app]/[stream]/init.mp4
    on vhost.hls.hls_recover +
    off vhost.hls.hls_master_m3u8_path_relative +
    block vhost.hds -
    off vhost.hds.enabled +
    value vhost.hds.hds_fragment + 10
    value vhost.hds.hds_window + 60
    value vhost.hds.hds_path + ./objs/nginx/html
    block vhost.dvr -
    off vhost.dvr.enabled +
    value vhost.dvr.dvr_apply - all
    value vhost.dvr.dvr_plan + session
    value vhost.dvr.dvr_path + ./objs/nginx/html/[app]/[stream].[timestamp].flv
    value vhost.dvr.dvr_duration + 30
    on vhost.dvr.dvr_wait_keyframe +
    value vhost.dvr.time_jitter + full
    block vhost.srt -
    off vhost.srt.enabled +
    on vhost.srt.srt_to_rtmp SRS_VHOST_SRT_SRT_TO_RTMP,SRS_VHOST_SRT_TO_RTMP
    block vhost.rtc -
    off vhost.rtc.enabled +
    on vhost.rtc.nack +
    on vhost.rtc.nack_no_copy +
    on vhost.rtc.twcc +
    value vhost.rtc.stun_timeout + 30
    off vhost.rtc.stun_strict_check +
    value vhost.rtc.dtls_role + passive
    value vhost.rtc.dtls_version + auto
    value vhost.rtc.drop_for_pt + 0
    off vhost.rtc.rtmp_to_rtc +
    off vhost.rtc.keep_bframe +
    on vhost.rtc.keep_avc_nalu_sei +
    value vhost.rtc.opus_bitrate + 48000
    value vhost.rtc.aac_bitrate + 48000
    off vhost.rtc.rtc_to_rtmp +
    value vhost.rtc.pli_for_rtmp + 6.0
    off vhost.rtc.init_rate_from_sdp +
    off vhost.rtc.keep_original_ssrc +
    off vhost.rtc.nack_prefer_rtx +
    block vhost.transcode -
    off vhost.transcode.enabled -
    value vhost.transcode.ffmpeg -
    block vhost.transcode.engine -
    off vhost.transcode.engine.enabled -
    block vhost.transcode.engine.perfile -
    value vhost.transcode.engine.perfile.re -
    value vhost.transcode.engine.perfile.rtsp_transport -
    value vhost.transcode.engine.iformat - flv
    block vhost.transcode.engine.vfilter -
    value vhost.transcode.engine.vfilter.i -
    value vhost.transcode.engine.vfilter.filter_complex -
    value vhost.transcode.engine.vfilter.vf -
    value vhost.transcode.engine.vcodec -
    value vhost.transcode.engine.vbitrate - 0
    value vhost.transcode.engine.vfps - 0
    value vhost.transcode.engine.vwidth - 0
    value vhost.transcode.engine.vheight - 0
    value vhost.transcode.engine.vthreads - 1
    value vhost.transcode.engine.vprofile -
    value vhost.transcode.engine.vpreset -
    block vhost.transcode.engine.vparams -
    value vhost.transcode.engine.vparams.t -
    value vhost.transcode.engine.vparams.coder -
    value vhost.transcode.engine.vparams.b_strategy -
    value vhost.transcode.engine.vparams.bf -
    value vhost.transcode.engine.vparams.refs -
    value vhost.transcode.engine.acodec -
    value vhost.transcode.engine.abitrate - 0
    value vhost.transcode.engine.asample_rate - 0
    value vhost.transcode.engine.achannels - 0
    block vhost.transcode.engine.aparams -
    value vhost.transcode.engine.aparams.profile:a -
    value vhost.transcode.engine.aparams.bsf:a -
    value vhost.transcode.engine.oformat - flv
    value vhost.transcode.engine.output -
    block vhost.ingest -
    off vhost.ingest.enabled -
    block vhost.ingest.input -
    value vhost.ingest.input.type - file
    value vhost.ingest.input.url -
    value vhost.ingest.ffmpeg -
    block vhost.ingest.engine -
    off vhost.ingest.engine.enabled -
    value vhost.ingest.engine.output -
    block vhost.bandcheck -
    gone vhost.bandcheck.enabled -
    gone vhost.bandcheck.key -
    gone vhost.bandcheck.interval - 30
    gone vhost.bandcheck.limit_kbps - 1000
    block rtmp -
    value rtmp.listen + 1935
    value rtmp.chunk_size + 60000
    block rtmps -
    off rtmps.enabled +
    value rtmps.listen + 1443
    value rtmps.key + ./conf/server.key
    value rtmps.cert + ./conf/server.crt
    block rtsp_server -
    off rtsp_server.enabled +
    value rtsp_server.listen + 554
    block vhost.rtsp -
    off vhost.rtsp.enabled +
    on vhost.rtsp.rtmp_to_rtsp +
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sound() {
        let mut seen = std::collections::BTreeSet::new();
        for directive in all() {
            assert!(seen.insert(directive.path), "{} twice", directive.path);
            if let Some((parent, _)) = directive.path.rsplit_once('.') {
                let parent = find(parent).unwrap_or_else(|| panic!("no {parent}"));
                assert_eq!(parent.form, Form::Block, "{}", directive.path);
            }
        }
        assert!(all().len() > 370);
        for (srs, ours) in ALIASES {
            assert!(find(srs).is_some() && is_implemented(ours), "{srs} {ours}");
        }
    }

    #[test]
    fn what_has_a_row_is_not_missing() {
        assert!(!is_known("vhost.play.gop_cache") && !is_known("vhost.play"));
        assert!(is_known("vhost.hds.hds_fragment") && is_known("vhost.hds"));
        assert!(is_known("vhost.rtc.enabled") && !is_known("vhost.hsl"));
        // It shrinks with each feature.
        assert!(unread_variables().len() > 100);
        assert!(!unread_variables().iter().any(|name| name == "SRS_LISTEN"));
    }
}
