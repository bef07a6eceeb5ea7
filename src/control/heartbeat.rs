//! The heartbeat: this server reports itself to another one, as SRS does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Call, HttpClient};
use super::hooks::grumble::Grumble;
use crate::config::{Config, ListenAddr};
use crate::fault::Fault;
use crate::limits::HOOK_ANSWER_MAX;
use crate::version;

/// Longest report.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether reports are wanted.
const IDLE: Duration = Duration::from_secs(5);

/// Reports for as long as the control thread runs.
/// `summaries` gives the document that goes with them where it is wanted.
pub async fn run(
    config: impl Fn() -> Arc<Config>,
    summaries: impl Fn() -> Value,
    client: Rc<HttpClient>,
) {
    let grumble = Grumble::default();
    loop {
        let now = config();
        if !now.heartbeat.enabled {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        // SRS: the query is cut off.
        let url = now.heartbeat.url.split('?').next().unwrap_or_default();
        let call = Call {
            url,
            json: Some(body(&now, &summaries)),
            timeout: TIMEOUT,
            answer_max: HOOK_ANSWER_MAX,
            tls_verify: true,
        };
        // The answer means nothing; that there is none does.
        if let Err(why) = client.call(call).await {
            grumble.say(url, |more| {
                tracing::warn!(reason = Fault::CallFailed.name(), url, more, "no heartbeat: {why}")
            });
        }
        tokio::time::sleep(now.heartbeat.interval.max(Duration::from_secs(1))).await;
    }
}

fn body(config: &Config, summaries: impl Fn() -> Value) -> String {
    let mut body = json!({
        "device_id": config.heartbeat.device_id,
        "ip": device_ip().to_string(),
        "server": version::server_id(),
        "service": version::service_id(),
        "pid": std::process::id().to_string(),
    });
    if config.heartbeat.summaries {
        body["summaries"] = summaries();
    }
    if config.heartbeat.ports {
        let list = |on: bool, list: &[ListenAddr]| -> Vec<String> {
            list.iter().filter(|_| on).map(ToString::to_string).collect()
        };
        body["rtmp"] = json!(list(true, &config.listen));
        body["http"] = json!(list(config.http_server.enabled, &config.http_server.listen));
        body["api"] = json!(list(config.http_api.enabled, &config.http_api.listen));
    }
    body.to_string()
}

/// The address this machine is known by: SRS_DEVICE_IP, else the one it would call out from.
fn device_ip() -> IpAddr {
    let named = std::env::var("SRS_DEVICE_IP").ok().and_then(|text| text.parse().ok());
    // Connecting a datagram socket sends nothing; the kernel only chooses a route.
    let routed = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
        socket.local_addr().ok().map(|addr| addr.ip())
    };
    named.or_else(routed).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_fields_of_srs() {
        let mut config = Config::default();
        config.heartbeat.device_id = "box \"1\"".into();
        let parse = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let figures = || json!({ "code": 0 });
        let short = parse(body(&config, figures));
        let mut fields: Vec<_> = short.as_object().unwrap().keys().collect();
        fields.sort();
        assert_eq!(fields, ["device_id", "ip", "pid", "server", "service"]);
        assert_eq!(short["device_id"], "box \"1\"");
        assert!(short.as_object().unwrap().values().all(serde_json::Value::is_string));
        config.heartbeat.ports = true;
        config.heartbeat.summaries = true;
        let long = parse(body(&config, figures));
        assert_eq!(long["summaries"]["code"], 0);
        assert_eq!(long["rtmp"], json!(["1935"]));
        assert_eq!(long["http"], json!(["8080"]));
        assert_eq!(long["api"], json!(["1985"]));
    }
}
