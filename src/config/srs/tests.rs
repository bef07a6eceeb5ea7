//! Tests of configurations in SRS's grammar: what starts, what is refused and where, what it means.

use std::time::Duration;

use crate::config::{
    Config, ConfigErrors, Environment, Loaded, LogLevel, LogTank, MwLatency, Sources, TimeJitter,
    load, load_text, to_short_toml,
};

/// Reads a text, with the one directive that none may lack put before its first line.
fn read(text: &str) -> Result<Loaded, ConfigErrors> {
    match text.contains("listen 1935") {
        true => load_text("x.conf", text),
        false => load_text("x.conf", &format!("listen 1935; {text}")),
    }
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|errors| panic!("{errors}")).config
}

fn errors(text: &str) -> Vec<String> {
    let errors = read(text).map(|_| panic!("{text:?} is taken")).unwrap_err();
    errors.0.iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    read(text).unwrap_or_else(|errors| panic!("{errors}")).warnings
}

#[test]
fn https_as_in_the_samples() {
    let https =
        |listen| format!("https {{ enabled on; listen {listen}; key ./x.key; cert ./x.crt; }}");
    let both = |api: u16, api_https: u16| {
        good(&format!(
            "{HEAD}\
             http_api {{ enabled on; listen {api}; {} }}\n\
             http_server {{ enabled on; listen 8080; dir ./objs/nginx/html; {} }}\n\
             vhost __defaultVhost__ {{ http_remux {{ enabled on; \
               mount [vhost]/[app]/[stream].flv; }} }}\n",
            https(api_https),
            https(8088)
        ))
    };
    let config = both(1985, 1990);
    assert!(config.serves_https() && !config.shares_https_port());
    assert_eq!(config.http_origin(true), Some(("https", 8088)));
    assert_eq!(config.http_origin(false), Some(("http", 8080)));
    assert_eq!(config.api_origin(true), Some(("https", 1990)));
    assert_eq!(config.http_server.https.key.to_str(), Some("./x.key"));
    // One port for both, by HTTP and by HTTPS.
    assert!(both(8080, 8088).shares_https_port());
    // What the directives say without being on.
    let off = good(&format!("http_server {{ enabled on; {} }}", https(8088).replace("on", "off")));
    assert!(!off.serves_https() && off.http_origin(true) == Some(("http", 8080)));
}

/// The head of most of SRS's samples.
const HEAD: &str = "listen 1935;\nmax_connections 1000;\ndaemon off;\nsrs_log_tank console;\n";

#[test]
fn a_low_latency_configuration_means_what_it_says() {
    let config = good(
        "listen 1935 [::]:19350 127.0.0.1:1936;  # three\n\
         max_connections 500; daemon off; srs_log_tank console; srs_log_level trace;\n\
         pid ./run/a.pid; work_dir /tmp; chunk_size 4096;\n\
         http_server { enabled on; listen 8081; crossdomain off; }\n\
         http_api { enabled on; listen 127.0.0.1:1985;\n\
           auth { enabled on; username admin; password 'with space'; } }\n\
         grace_start_wait 1000;\n\
         vhost __defaultVhost__ {\n\
           tcp_nodelay on; min_latency on; in_ack_size 1000;\n\
           play { gop_cache off; queue_length 10; mw_latency 100; mw_msgs 4; time_jitter zero; }\n\
           publish { mr off; firstpkt_timeout 3000; normal_timeout 4500; }\n\
           http_remux { enabled on; mount [vhost]/x/[app]/[stream].flv; }\n\
         }\n",
    );
    assert_eq!(config.listen.len(), 3);
    assert_eq!((config.max_connections, config.daemon), (500, false));
    assert_eq!((config.log.tank, config.log.level), (LogTank::Console, LogLevel::Info));
    assert_eq!(config.pid.to_str(), Some("./run/a.pid"));
    assert!(config.http_server.enabled && !config.http_server.crossdomain);
    assert_eq!(config.http_server.listen[0].port(), 8081);
    assert_eq!(config.http_api.listen[0].to_string(), "127.0.0.1:1985");
    assert_eq!(config.http_api.auth.password, "with space");
    assert_eq!(config.grace_start_wait, Duration::from_secs(1));
    let vhost = config.vhost("any.name");
    assert!(vhost.tcp_nodelay && vhost.min_latency && !vhost.play.gop_cache);
    assert_eq!((vhost.chunk_size, vhost.in_ack_size), (4096, 1000));
    assert_eq!(vhost.play.queue_length, Duration::from_secs(10));
    assert_eq!(vhost.play.mw_latency, MwLatency::Fixed(Duration::from_millis(100)));
    assert_eq!((vhost.play.mw_msgs, vhost.play.time_jitter), (4, TimeJitter::Zero));
    assert_eq!(vhost.publish.normal_timeout, Duration::from_millis(4500));
    assert!(vhost.http_remux.enabled);
    assert_eq!(vhost.http_remux.mount, "[vhost]/x/[app]/[stream].flv");
}

#[test]
fn what_is_not_said_is_as_in_srs() {
    let config = good("listen 1935; vhost __defaultVhost__ { }");
    assert!(config.daemon && !config.http_server.enabled && !config.http_api.enabled);
    assert!(!config.vhost("x").http_remux.enabled && config.vhost("x").enabled);
    assert_eq!(config.log.tank, LogTank::File);
    assert_eq!(config.log.file.to_str(), Some("./objs/srs.log"));
    assert_eq!(config.pid.to_str(), Some("./objs/srs.pid"));
    // In a container SRS stays in the foreground, unless it is told not to.
    assert!(!good("in_docker on;").daemon);
    assert!(good("in_docker on; disable_daemon_for_docker off;").daemon);
    // There it watches its configuration, too.
    assert!(good("in_docker on;").config_watch && !config.config_watch);
    assert!(!good("in_docker on; auto_reload_for_docker off;").config_watch);
}

#[test]
fn vhosts_have_settings_of_their_own_and_unlisted_ones_are_refused() {
    let config = good(
        "chunk_size 5000;\n\
         vhost a.com { chunk_size 6000; play { gop_cache off; } }\n\
         vhost 10.0.0.1 { enabled off; }\n",
    );
    assert_eq!(config.vhost("a.com").chunk_size, 6000);
    assert!(!config.vhost("a.com").play.gop_cache);
    assert_eq!(config.vhost("10.0.0.1").chunk_size, 5000);
    assert!(!config.vhost("10.0.0.1").enabled);
    assert!(!config.vhost("other.com").enabled && config.vhost("a.com").enabled);

    let config = good(
        "vhost __defaultVhost__ { play { queue_length 3; } }\n\
         vhost a.com { } # nothing is inherited from the default vhost\n",
    );
    assert!(config.vhost("other.com").enabled);
    assert_eq!(config.vhost("other.com").play.queue_length, Duration::from_secs(3));
    assert_eq!(config.vhost("a.com").play.queue_length, Duration::from_secs(30));
}

#[test]
fn mistakes_have_a_line_and_a_hint() {
    assert_eq!(
        errors(
            "listn 1935;\n\
             max_connections many;\n\
             vhost a.com {\n\
               play { gop_cach off; mw_latency 100 }\n\
               gop_cahce off;\n\
               chunk_size 12;\n\
               http_remux { enabled on; mount [vhost]/[app]/[stream].m3u8; }\n\
             }\n\
             vhost b.com { http_remux { } http_remux { } }\n\
             vhost { }\n\
             play { }\n\
             daemon { }\n\
             http_api on;\n"
        ),
        [
            "x.conf:1: unknown directive listn; did you mean listen?",
            "x.conf:2: max_connections must be a number, not \"many\"",
            "x.conf:4: mw_latency does not end with a ;",
            "x.conf:4: unknown directive vhost.play.gop_cach; did you mean vhost.play.gop_cache?",
            "x.conf:5: unknown directive vhost.gop_cahce; did you mean vhost.play.gop_cache?",
            "x.conf:6: vhost.chunk_size must be a whole number from 128 to 16777216 (bytes), \
             not 12",
            "x.conf:7: vhost.http_remux.mount \"[vhost]/[app]/[stream].m3u8\" must end in .flv, \
             .ts, .mp4, .aac or .mp3, which says what streams are packed in",
            "x.conf:9: http_remux is there already; remove one of them",
            "x.conf:10: a vhost is written as: vhost its.name { … }",
            "x.conf:11: unknown directive play; did you mean vhost.play?",
            "x.conf:12: daemon takes a value, no block",
            "x.conf:13: http_api takes a block: http_api { … }",
        ]
    );
    assert_eq!(
        errors("is_full on;"),
        ["x.conf:1: is_full marks a list of all directives, which is not to be run"]
    );
    let name = "x.conf:1: a vhost cannot have the name \"play\"";
    assert_eq!(errors("vhost play { }\n"), [name]);
}

#[test]
fn what_is_missing_is_named_where_it_is_asked_for() {
    let missing = "is a feature of SRS that this version does not have yet; switch it off with \
                   `enabled off;` or remove it";
    let text = "vhost a.com {\n hds { enabled on;\n hds_fragment 5; }\n rtc { enabled on; }\n}\n\
                srt_server { enabled on; listen 1; }\n";
    assert_eq!(
        errors(text),
        [
            format!("x.conf:2: vhost.hds {missing}"),
            format!("x.conf:4: vhost.rtc {missing}"),
            format!("x.conf:6: srt_server {missing}"),
        ]
    );
    let directive = "is a directive of SRS that this version does not have yet; remove it";
    assert_eq!(
        errors(
            "vhost a.com {\n cluster { mode remote;\n origin 127.0.0.1; }\n\
             play { mix_correct on; }}"
        ),
        [
            format!("x.conf:2: vhost.cluster.mode {directive}"),
            format!("x.conf:3: vhost.cluster.origin {directive}"),
            format!("x.conf:4: vhost.play.mix_correct {directive}"),
        ]
    );
    // Names inside are checked all the same.
    assert_eq!(
        errors("vhost a.com { hds { enabled off; hds_fragmnt 3; } }"),
        ["x.conf:1: unknown directive vhost.hds.hds_fragmnt; did you mean vhost.hds.hds_fragment?"]
    );
}

#[test]
fn what_is_switched_off_or_a_default_is_passed_over() {
    let text = "vhost a.com {\n\
           hds { enabled off; hds_fragment 3; }\n\
           rtc { rtmp_to_rtc on; }\n\
           srt { enabled off; srt_to_rtmp off; }\n\
           cluster { mode local; origin 10.0.0.1; coworkers a b; origin_cluster off; }\n\
           play { atc off; atc_auto off; mix_correct off; }\n\
           publish { kickoff_for_idle 0; }\n\
           transcode live/x { enabled off; ffmpeg ./f; engine e { enabled on; vcodec libx264;\n\
             vfilter { vf 'drawtext=x'; } perfile { re; anything at all; } } }\n\
          ingest i { enabled off; input { type file; url ./a.flv; } engine { output rtmp://x; } }\n\
         }\n\
         srt_server { enabled off; listen 10080; passphrase xxxxxxxxxxxxxxx; }\n\
         stream_caster { enabled off; caster flv; output rtmp://x; listen 8936; }\n\
         stats { network 0; }\n";
    assert_eq!(warnings(text), Vec::<String>::new());
    let text = "vhost a.com { publish { mr on; mr_latency 500; parse_sps on; } bandcheck {\n\
                enabled on; } play { gop_cache maybe; mw_latency 100ms extra; } }\n\
                http_server { dir ./objs/nginx/html; }\npid x; pid y; work_dir '';\n";
    assert_eq!(
        warnings(text),
        [
            "x.conf:4: pid is there already; the first one counts",
            "x.conf:4: work_dir says nothing: its default stays",
            "x.conf:1: vhost.publish.mr has no effect: receives are gathered by load",
            "x.conf:1: vhost.publish.mr_latency has no effect: receives are gathered by load",
            "x.conf:2: vhost.bandcheck.enabled was removed from SRS and has no effect",
            "x.conf:2: vhost.play.gop_cache maybe means on, as in SRS; write on or off",
            "x.conf:2: vhost.play.mw_latency takes one word: extra has no effect",
            "x.conf:2: vhost.play.mw_latency 100ms is read as 100, as in SRS",
        ]
    );
}

#[test]
fn old_names_are_where_they_are_now() {
    let config = good(
        "http_stream { enabled on; listen 8080; }\n\
         vhost a.com {\n\
           gop_cache off; queue_length 10; time_jitter zero; mw_latency 100;\n\
           reduce_sequence_header on; publish_1stpkt_timeout 1000;\n\
           publish_normal_timeout 7000; mr { enabled off; latency 350; }\n\
           refer a.com b.com; atc off; nack { enabled on; no_copy on; } twcc { enabled on; }\n\
           token_traverse off; mode local; debug_srs_upnode off;\n\
           http_remux { enabled off; hstrs on; }\n\
         }\n\
         rtc_server { enabled off; perf_stat on; }\n"
            .replace("refer a.com b.com;", "")
            .as_str(),
    );
    assert!(config.http_server.enabled);
    let vhost = config.vhost("a.com");
    assert!(!vhost.play.gop_cache && vhost.play.reduce_sequence_header);
    assert_eq!(vhost.play.queue_length, Duration::from_secs(10));
    assert_eq!(vhost.play.time_jitter, TimeJitter::Zero);
    assert_eq!(vhost.publish.firstpkt_timeout, Duration::from_secs(1));
    assert_eq!(vhost.publish.normal_timeout, Duration::from_secs(7));
    assert_eq!(
        errors("vhost a.com {\n forward 10.0.0.1 10.0.0.2;\n mr { speed 3; }\n}"),
        [
            "x.conf:2: vhost.forward is a feature of SRS that this version does not have yet; \
             switch it off with `enabled off;` or remove it",
            "x.conf:3: unknown directive vhost.mr.speed",
        ]
    );
}

#[test]
fn of_several_blocks_the_first_counts() {
    let text = "vhost a.com { play { gop_cache off; } play { queue_length 5; } }\n\
        vhost a.com { chunk_size 1000; }\nhttp_server { enabled off; }\n\
        http_server { enabled on; }\n";
    let config = good(text);
    assert!(!config.vhost("a.com").play.gop_cache && !config.http_server.enabled);
    assert_eq!(config.vhost("a.com").play.queue_length, Duration::from_secs(30));
    assert_eq!(config.vhost("a.com").chunk_size, 60000);
    assert_eq!(
        warnings(text),
        [
            "x.conf:4: http_server is there already; the first one counts, as in SRS",
            "x.conf:1: play is there already; the first one counts, as in SRS",
            "x.conf:2: the vhost a.com is there already; the first one counts, as in SRS",
        ]
    );
}

#[test]
fn where_to_listen_has_to_be_said() {
    let why = "no listen says where RTMP is served; write for example listen 1935;";
    for text in ["", "vhost __defaultVhost__ { }", "listen;", "http_server { listen 8080; }"] {
        let errors = load_text("x.conf", text).unwrap_err().to_string();
        assert_eq!(errors, format!("x.conf:1: {why}"), "{text}");
    }
    assert!(load_text("x.conf", "rtmp { listen 1935; }").is_ok());
}

#[test]
fn rules_across_settings_name_the_lines() {
    assert_eq!(
        errors("\ndaemon on;\nsrs_log_tank file;\nasprocess on;"),
        ["x.conf:2: daemon and asprocess cannot both be on: in the background the parent is \
             always gone (asprocess: x.conf:4)"]
    );
    assert_eq!(
        errors("listen 1935;\nhttp_server {\n enabled on;\n listen 1935;\n}"),
        ["x.conf:4: http_server.listen 1935 and listen 1935 are the same port; change one of \
             them (listen: x.conf:1)"]
    );
}

/// The shapes of SRS's samples that use what this version has, by the samples' names.
const SAMPLES: &[(&str, &str)] = &[
    ("rtmp", "vhost __defaultVhost__ {\n}\n"),
    (
        "realtime",
        "vhost __defaultVhost__ {\n tcp_nodelay on;\n min_latency on;\n play {\n gop_cache off;\n \
         queue_length 10;\n mw_latency 100;\n }\n publish {\n mr off;\n }\n}\n",
    ),
    (
        "http.flv.live",
        "http_server {\n enabled on;\n listen 8080;\n dir ./objs/nginx/html;\n}\n\
         vhost __defaultVhost__ {\n http_remux {\n enabled on;\n \
         mount [vhost]/[app]/[stream].flv;\n }\n}\n",
    ),
    (
        "http.ts.live",
        "http_server {\n enabled on;\n listen 8080;\n dir ./objs/nginx/html;\n}\n\
         vhost __defaultVhost__ {\n http_remux {\n enabled on;\n \
         mount [vhost]/[app]/[stream].ts;\n }\n}\n",
    ),
    (
        "http.aac.live",
        "http_server {\n enabled on;\n listen 8080;\n dir ./objs/nginx/html;\n}\n\
         vhost __defaultVhost__ {\n http_remux {\n enabled on;\n fast_cache 30;\n \
         mount [vhost]/[app]/[stream].aac;\n }\n}\n",
    ),
    (
        "realtime.flv",
        "http_server {\n enabled on;\n listen 8080;\n dir ./objs/nginx/html;\n}\n\
         vhost __defaultVhost__ {\n http_remux { enabled on;\n mount \
         [vhost]/[app]/[stream].flv; }\n tcp_nodelay on;\n min_latency on;\n play { gop_cache \
         off;\n queue_length 10;\n mw_latency 100; }\n publish { mr off; }\n}\n",
    ),
    (
        "http.api.auth",
        "http_api { enabled on;\n listen 1985;\n auth { enabled on;\n username admin;\n \
         password admin; } }\nvhost __defaultVhost__ { }\n",
    ),
    (
        "console.ipv46",
        "http_api {\n enabled on;\n listen 1985 [::]:1985;\n}\nhttp_server {\n \
         enabled on;\n listen 8080 [::]:8080;\n}\n\
         rtc_server {\n enabled off;\n listen 8000; # UDP port\n candidate $CANDIDATE;\n}\n\
         vhost __defaultVhost__ {\n hls { enabled off; }\n http_remux { enabled on;\n mount \
         [vhost]/[app]/[stream].flv; }\n rtc { enabled off;\n rtmp_to_rtc on; }\n play{ \
         gop_cache_max_frames 2500; }\n}\n",
    ),
];

#[test]
fn samples_start_unchanged_and_survive_import() {
    for (name, text) in SAMPLES {
        let file = format!("{name}.conf");
        let loaded = load_text(&file, &format!("{HEAD}{text}"));
        let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.config.vhost("any").enabled && !loaded.config.daemon, "{name}");
        let toml = to_short_toml(&loaded.config);
        let again = load_text("import.toml", &toml).unwrap_or_else(|e| panic!("{e}\n{toml}"));
        assert_eq!(again.config, loaded.config, "{name}\n{toml}");
    }
}

#[test]
fn import_keeps_vhosts() {
    let text = "listen 1935; vhost a.com { play { queue_length 3; } } vhost paly { enabled off; }";
    let config = good(text);
    let toml = to_short_toml(&config);
    assert_eq!(load_text("import.toml", &toml).unwrap().config, config, "{toml}");
    assert!(toml.contains("[vhost.\"__defaultVhost__\"]\nenabled = false\n"), "{toml}");
    assert!(toml.contains("[vhost.\"a.com\".play]\nqueue_length = 3\n"), "{toml}");
}

#[test]
fn files_include_others_and_the_environment_stands_over_them() {
    let dir = std::env::temp_dir().join(format!("ringcast-srs-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("conf")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write("main.conf", "listen 1935;\ninclude ./conf/vhost.conf conf/none.conf;\n");
    write("conf/vhost.conf", "vhost a.com {\n play { queue_length 4; }\n}\n");
    write("conf/none.conf", "");
    let vars = [("SRS_LISTEN", "1936"), ("SRS_VHOST_PLAY_GOP_CACHE", "off"), ("SRS_DAEMON", "off")];
    let sources = Sources {
        file: Some(dir.join("main.conf")),
        directory: Some(dir.clone()),
        environment: Environment::new(vars.map(|(n, v)| (n.to_string(), v.to_string()))),
        ..Sources::default()
    };
    let config = load(&sources).unwrap_or_else(|errors| panic!("{errors}")).config;
    assert_eq!(config.listen[0].port(), 1936);
    assert_eq!(config.vhost("a.com").play.queue_length, Duration::from_secs(4));
    assert!(!config.vhost("a.com").play.gop_cache && !config.daemon);

    write("conf/vhost.conf", "vhost a.com {\n play { queue_lenth 4; }\n}\n");
    let shown = load(&sources).unwrap_err().to_string();
    let want = "./conf/vhost.conf:2: unknown directive vhost.play.queue_lenth; did you mean";
    assert!(shown.starts_with(want), "{shown}");
    write("main.conf", "\ninclude gone.conf;\n");
    let shown = load(&sources).unwrap_err().to_string();
    assert!(shown.contains("main.conf:2: cannot read") && shown.contains("gone.conf"), "{shown}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_directive_of_srs_is_known_by_name() {
    use crate::config::directives::{Form, all};
    for directive in all() {
        let mut names: Vec<&str> = directive.path.split('.').collect();
        let last = names.pop().unwrap_or_default();
        let end = if directive.form == Form::Block { "{ }" } else { "off;" };
        let open: String = names
            .iter()
            .map(|name| format!("{name} {} {{ ", if *name == "vhost" { "a.com" } else { "" }))
            .collect();
        let word = if directive.path == "vhost" { "a.com" } else { "" };
        let text = format!("{open}{last} {word} {end}{}", "}".repeat(names.len()));
        if let Err(errors) = read(&text) {
            assert!(!errors.to_string().contains("unknown"), "{text}: {errors}");
        }
    }
}
