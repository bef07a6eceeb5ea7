//! Directives that older versions of SRS wrote in other places, put where they are now.

use super::grammar::{Node, Place};

/// Directives of a vhost that moved into a block of it: old name, block, new name.
const MOVED: &[(&str, &str, &str)] = &[
    ("refer_play", "refer", "play"),
    ("refer_publish", "refer", "publish"),
    ("publish_1stpkt_timeout", "publish", "firstpkt_timeout"),
    ("publish_normal_timeout", "publish", "normal_timeout"),
    ("time_jitter", "play", "time_jitter"),
    ("mix_correct", "play", "mix_correct"),
    ("atc", "play", "atc"),
    ("atc_auto", "play", "atc_auto"),
    ("mw_latency", "play", "mw_latency"),
    ("gop_cache", "play", "gop_cache"),
    ("gop_cache_max_frames", "play", "gop_cache_max_frames"),
    ("queue_length", "play", "queue_length"),
    ("send_min_interval", "play", "send_min_interval"),
    ("reduce_sequence_header", "play", "reduce_sequence_header"),
    ("mode", "cluster", "mode"),
    ("origin", "cluster", "origin"),
    ("token_traverse", "cluster", "token_traverse"),
    ("vhost", "cluster", "vhost"),
    ("debug_srs_upnode", "cluster", "debug_srs_upnode"),
];

/// The same for what stood in a block of its own: old block, old name, new block, new name.
const MOVED_FROM_BLOCK: &[(&str, &str, &str, &str)] = &[
    ("mr", "enabled", "publish", "mr"),
    ("mr", "latency", "publish", "mr_latency"),
    ("nack", "enabled", "rtc", "nack"),
    ("nack", "no_copy", "rtc", "nack_no_copy"),
    ("twcc", "enabled", "rtc", "twcc"),
];

/// What stood in the blocks of push casters and means nothing any more.
const CASTER_GONE: &[&str] = &[
    "tcp_enable",
    "rtp_port_min",
    "rtp_port_max",
    "wait_keyframe",
    "rtp_idle_timeout",
    "audio_enable",
    "auto_create_channel",
];

/// The same in the block `sip` of a caster.
const SIP_GONE: &[&str] = &[
    "serial",
    "realm",
    "ack_timeout",
    "keepalive_timeout",
    "invite_port_fixed",
    "query_catalog_interval",
    "auto_play",
];

/// Rewrites a whole configuration.
pub(super) fn modernize(nodes: &mut [Node]) {
    for node in nodes {
        match node.name.as_str() {
            "http_stream" => node.name = "http_server".into(),
            "vhost" => vhost(node),
            "rtc_server" => remove(node, &["perf_stat", "queue_length"]),
            "srt_server" => rename(node, "tlpkdrop", "tlpktdrop"),
            "stream_caster" => caster(node),
            _ => {}
        }
    }
}

fn vhost(node: &mut Node) {
    let Some(children) = node.block.take() else { return };
    let mut kept: Vec<Node> = Vec::with_capacity(children.len());
    let mut moved: Vec<(&str, Node)> = Vec::new();
    for mut child in children {
        let name = child.name.clone();
        let place = MOVED.iter().find(|(old, ..)| *old == name && child.block.is_none());
        if let Some((_, block, new)) = place {
            if *block == "refer" {
                moved.push((block, Node::new("enabled", &["on"], child.at)));
            }
            child.name = (*new).into();
            moved.push((block, child));
            continue;
        }
        match name.as_str() {
            "http" => child.name = "http_static".into(),
            "refer" | "forward" if child.block.is_none() => {
                let new = if name == "refer" { "all" } else { "destination" };
                let block = if name == "refer" { "refer" } else { "forward" };
                moved.push((block, Node::new("enabled", &["on"], child.at)));
                child.name = new.into();
                moved.push((block, child));
                continue;
            }
            "mr" | "nack" | "twcc" if child.block.is_some() => {
                for mut inner in child.block.take().into_iter().flatten() {
                    let to = MOVED_FROM_BLOCK
                        .iter()
                        .find(|(block, old, ..)| *block == name && *old == inner.name);
                    match to {
                        Some((_, _, block, new)) => {
                            inner.name = (*new).into();
                            moved.push((block, inner));
                        }
                        // Not one of SRS's: let it be found as unknown, where it stands.
                        None => kept.push(Node { name: format!("{name}.{}", inner.name), ..inner }),
                    }
                }
                continue;
            }
            "rtc" => rtc(&mut child),
            "http_remux" => remove(&mut child, &["hstrs"]),
            _ => {}
        }
        kept.push(child);
    }
    for (block, child) in moved {
        add(&mut kept, block, child);
    }
    node.block = Some(kept);
}

/// Puts a directive into the block of that name, which is made when it is not there. What
/// stands in the block already comes first, and so counts.
fn add(nodes: &mut Vec<Node>, block: &str, child: Node) {
    let at: Place = child.at;
    let index = nodes.iter().position(|node| node.name == block && node.block.is_some());
    let index = index.unwrap_or_else(|| {
        nodes.push(Node { block: Some(Vec::new()), ..Node::new(block, &[], at) });
        nodes.len() - 1
    });
    if let Some(inner) = &mut nodes[index].block {
        // One `enabled` for several old directives.
        if child.name != "enabled" || !inner.iter().any(|node| node.name == "enabled") {
            inner.push(child);
        }
    }
}

fn rtc(node: &mut Node) {
    for child in node.block.iter_mut().flatten() {
        let word = child.word().unwrap_or_default().to_string();
        let (name, on) = match child.name.as_str() {
            "aac" => ("rtmp_to_rtc", word == "transcode"),
            "bframe" => ("keep_bframe", word == "keep"),
            _ => continue,
        };
        *child = Node::new(name, &[if on { "on" } else { "off" }], child.at);
    }
}

fn caster(node: &mut Node) {
    remove(node, CASTER_GONE);
    let Some(children) = &mut node.block else { return };
    for child in children.iter_mut().filter(|child| child.name == "sip") {
        remove(child, SIP_GONE);
    }
    let host = children.iter().position(|child| child.name == "host");
    if let Some(mut host) = host.map(|index| children.remove(index)) {
        host.name = "candidate".into();
        add(children, "sip", host);
    }
}

fn remove(node: &mut Node, names: &[&str]) {
    if let Some(children) = &mut node.block {
        children.retain(|child| !names.contains(&child.name.as_str()));
    }
}

fn rename(node: &mut Node, old: &str, new: &str) {
    for child in node.block.iter_mut().flatten().filter(|child| child.name == old) {
        child.name = new.into();
    }
}
