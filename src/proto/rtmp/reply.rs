//! What the server says, word by word as SRS does, because encoders have been made to work with it.

use super::chunk::write_control;
use super::command::Builder;
use super::message::{type_id, user_control};
use super::server::{Connect, Enhanced, Server, ServerOptions};
use super::{MESSAGE_STREAM_ID, csid};
use crate::media::codec::{AudioCodec, VideoCodec};
use crate::proto::amf0::put;

/// The version of the server software that Flash clients know.
macro_rules! fms_version {
    () => {
        "3,5,3,888"
    };
}

impl Server {
    pub(super) fn play_started(&mut self) {
        self.stream_control(user_control::STREAM_BEGIN);
        for (code, description) in [
            ("NetStream.Play.Reset", "Playing and resetting stream."),
            ("NetStream.Play.Start", "Started playing stream."),
        ] {
            let status = Builder::new("onStatus", 0.0).null().texts(&[
                ("level", "status"),
                ("code", code),
                ("description", description),
                ("details", "stream"),
                ("clientid", CLIENT_ID),
            ]);
            self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &status);
        }
        let mut access = Vec::new();
        put::string(&mut access, "|RtmpSampleAccess");
        put::boolean(&mut access, true);
        put::boolean(&mut access, true);
        self.link.write(csid::STREAM, type_id::DATA_AMF0, MESSAGE_STREAM_ID, 0, &access);
    }

    pub(super) fn rejected(&mut self, url: &str, tc_url: &str) {
        let mut ex = Vec::new();
        put::object(&mut ex);
        for (key, text) in [
            ("level", "error"),
            ("code", "NetConnection.Connect.Rejected"),
            ("description", "RTMP 302 Redirect"),
        ] {
            put::key(&mut ex, key);
            put::string(&mut ex, text);
        }
        put::key(&mut ex, "ex");
        put::object(&mut ex);
        put::key(&mut ex, "code");
        put::number(&mut ex, 302.0);
        put::key(&mut ex, "redirect");
        put::string(&mut ex, tc_url);
        put::key(&mut ex, "redirect2");
        put::string(&mut ex, url);
        put::end(&mut ex);
        put::end(&mut ex);
        let status = Builder::new("onStatus", 0.0).null().raw(&ex);
        self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &status);
    }

    /// SRS: window, bandwidth and chunk size come before the result; OBS depends on the latter.
    pub(super) fn reply_to_connect(&mut self, options: &ServerOptions, connect: &Connect) {
        if options.out_ack_size > 0 {
            self.link.write_window(options.out_ack_size);
        }
        let [a, b, c, d] = PEER_BANDWIDTH.to_be_bytes();
        let bandwidth = [a, b, c, d, DYNAMIC];
        write_control(&mut self.link.output, type_id::SET_PEER_BANDWIDTH, &bandwidth);
        self.link.set_chunk_size(options.chunk_size);

        let mut objects = Vec::with_capacity(512);
        let out = &mut objects;
        put::object(out);
        put::key(out, "fmsVer");
        put::string(out, concat!("FMS/", fms_version!()));
        put::key(out, "capabilities");
        put::number(out, 127.0);
        put::key(out, "mode");
        put::number(out, 1.0);
        put_enhanced(out, connect.enhanced);
        put::end(out);

        put::object(out);
        put::key(out, "level");
        put::string(out, "status");
        put::key(out, "code");
        put::string(out, "NetConnection.Connect.Success");
        put::key(out, "description");
        put::string(out, "Connection succeeded");
        put::key(out, "objectEncoding");
        put::number(out, connect.object_encoding);
        put::key(out, "data");
        options.put_server_data(out);
        put::end(out);
        // SRS: the result carries transaction 1, whatever the call said.
        let result = Builder::new("_result", 1.0).raw(&objects);
        self.command_out(csid::COMMAND, 0, &result);
        self.command_out(csid::COMMAND, 0, &Builder::new("onBWDone", 0.0).null());
    }

    pub(super) fn created(&mut self, tid: f64) {
        let result = Builder::new("_result", tid).null().number(f64::from(MESSAGE_STREAM_ID));
        self.command_out(csid::COMMAND, 0, &result);
    }

    pub(super) fn result_undefined(&mut self, tid: f64, message_stream_id: u32) {
        let result = Builder::new("_result", tid).null().undefined();
        self.command_out(csid::COMMAND, message_stream_id, &result);
    }

    pub(super) fn result_null(&mut self, tid: f64) {
        self.command_out(csid::COMMAND, 0, &Builder::new("_result", tid).null().null());
    }

    /// `onFCPublish` and `onFCUnpublish`, which have no level.
    pub(super) fn fc_event(&mut self, name: &str, code: &str, description: &str) {
        let info = [("code", code), ("description", description)];
        let event = Builder::new(name, 0.0).null().texts(&info);
        self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &event);
    }

    pub(super) fn on_status(&mut self, code: &str, description: &str, client_id: bool) {
        let info = [
            ("level", "status"),
            ("code", code),
            ("description", description),
            ("clientid", CLIENT_ID),
        ];
        let info = if client_id { &info[..] } else { &info[..3] };
        let status = Builder::new("onStatus", 0.0).null().texts(info);
        self.command_out(csid::STREAM, MESSAGE_STREAM_ID, &status);
    }

    pub(super) fn stream_control(&mut self, event: u16) {
        self.link.write_user_control(event, &MESSAGE_STREAM_ID.to_be_bytes());
    }

    fn command_out(&mut self, csid: u8, message_stream_id: u32, command: &Builder) {
        self.link.write(csid, type_id::COMMAND_AMF0, message_stream_id, 0, command.bytes());
    }
}

impl ServerOptions {
    /// Who serves. The keys are those of SRS, whose clients and edges show them in their logs.
    fn put_server_data(&self, out: &mut Vec<u8>) {
        put::ecma_array(out, 10);
        let ip = self.server_ip.to_string();
        for (key, text) in [
            ("version", fms_version!()),
            ("srs_sig", "SRS"),
            ("srs_server", concat!("ringcast/", env!("CARGO_PKG_VERSION"))),
            ("srs_license", "MIT"),
            ("srs_url", "https://github.com/ossrs/srs"),
            ("srs_version", env!("CARGO_PKG_VERSION")),
            ("srs_authors", "ringcast"),
            ("srs_server_ip", &ip),
        ] {
            put::key(out, key);
            put::string(out, text);
        }
        put::key(out, "srs_pid");
        put::number(out, f64::from(self.pid));
        put::key(out, "srs_id");
        put::string(out, &self.session_id);
        put::end(out);
    }
}

/// What this server does of enhanced RTMP, in the form that the client used: one that said nothing
/// of it gets the reply that it has always got.
fn put_enhanced(out: &mut Vec<u8>, client: Enhanced) {
    let video: Vec<_> = VideoCodec::ALL.iter().map(|codec| codec.fourcc()).collect();
    let audio: Vec<_> = AudioCodec::ALL.iter().filter_map(|codec| codec.fourcc()).collect();
    let name = |fourcc: &[u8; 4]| String::from_utf8_lossy(fourcc).into_owned();
    if client.fourcc_list {
        put::key(out, "fourCcList");
        put::strict_array(out, (video.len() + audio.len()) as u32);
        for fourcc in video.iter().chain(&audio) {
            put::string(out, &name(fourcc));
        }
    }
    if client.info_maps || client.caps_ex.is_some() {
        for (key, fourccs) in [("videoFourCcInfoMap", &video), ("audioFourCcInfoMap", &audio)] {
            put::key(out, key);
            put::object(out);
            for fourcc in fourccs {
                put::key(out, &name(fourcc));
                put::number(out, CAN_FORWARD);
            }
            put::end(out);
        }
        put::key(out, "capsEx");
        put::number(out, CAPS_MODEX);
    }
}

/// FourCcInfoMask.CanForward.
const CAN_FORWARD: f64 = 4.0;

/// CapsExMask.ModEx. Multitrack (2) is not claimed, although such messages are understood: only
/// their default track is passed on, so a client does better to send no other.
const CAPS_MODEX: f64 = 4.0;

/// The `clientid` of every status (SRS).
const CLIENT_ID: &str = "ASAICiss";

/// Bytes a second that the client is told, which no client keeps to.
const PEER_BANDWIDTH: u32 = 2_500_000;

/// Limit type of SetPeerBandwidth.
const DYNAMIC: u8 = 2;
