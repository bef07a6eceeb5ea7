//! A plan made ready: URLs resolved, files read, who plays whose stream. Shared by all workers,
//! never changed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::check::{Content, Reference};
use crate::clock;
use crate::media::{FlvFile, Generated, Source};
use crate::plan::{Plan, PlanError, PlayGroup, PublishGroup};
use crate::report::{GroupHead, Role};
use crate::target::{Target, expand};

/// The shared part of a run.
#[derive(Debug)]
pub struct Job {
    /// The plan.
    pub plan: Plan,
    /// All groups; publishers first.
    pub groups: Vec<Group>,
    /// Start of the run, nanoseconds on the clock.
    pub start: u64,
    /// End of the run.
    pub end: u64,
    /// Makes epochs of this run differ from those of others.
    pub epoch_base: u32,
    streams: HashMap<(String, String), Content>,
}

/// A group of the plan.
#[derive(Debug)]
pub struct Group {
    /// How it is named in reports.
    pub head: GroupHead,
    /// Where to connect.
    pub address: SocketAddr,
    /// Local addresses, used in turn; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// Nanoseconds from the start of the run.
    pub from: u64,
    /// Nanoseconds from the start of the run; `None`: to the end.
    pub to: Option<u64>,
    /// Connections per second; zero: all at once.
    pub ramp: f64,
    /// What its members do.
    pub what: What,
}

/// What the members of a group do.
#[derive(Debug)]
pub enum What {
    /// Publish.
    Publish {
        /// The settings.
        group: Box<PublishGroup>,
        /// What to send.
        source: Source,
        /// Number of the first member's stream.
        stream_base: u32,
    },
    /// Play.
    Play {
        /// The settings.
        group: Box<PlayGroup>,
        /// Content given by the group itself; `None`: looked up by name among the publishers.
        content: Option<Content>,
    },
}

/// Players per source address on loopback, so that ephemeral ports last and no per-address limit
/// of the server is met by accident.
const PLAYERS_PER_SOURCE: u32 = 4000;

/// Time between the making of a job and its start, so that all workers are up.
const LEAD_NS: u64 = 50_000_000;

impl Job {
    /// Makes a plan ready. Reads files and resolves names, both of which may block.
    pub fn new(plan: Plan) -> Result<Job, PlanError> {
        let plan = plan.checked()?;
        let mut groups = Vec::new();
        let mut streams = HashMap::new();
        let mut stream_base = 0;
        for g in &plan.publish {
            let (source, content) = match &g.file {
                Some(path) => {
                    let file =
                        FlvFile::open(path).map_err(|e| PlanError::File(g.name.clone(), e))?;
                    let reference = Arc::new(Reference::new(&file));
                    (Source::File(Arc::new(file)), Some(Content::File(reference)))
                }
                None => (Source::Generated(Arc::new(Generated::new(g.generate_options()))), None),
            };
            for n in 0..g.clients {
                let stream = Some(stream_base + n);
                let content = content.clone().unwrap_or(Content::Generated { stream });
                streams.insert(stream_key(&target(&g.name, &g.url, n)?), content);
            }
            groups.push(Group {
                what: What::Publish { group: Box::new(g.clone()), source, stream_base },
                ..group(
                    Role::Publish,
                    &g.name,
                    &g.url,
                    g.clients,
                    &g.sources,
                    (g.start, g.stop, g.ramp),
                )?
            });
            stream_base += g.clients;
        }
        for g in &plan.play {
            let content = match (&g.reference, g.generated, u32::try_from(g.stream)) {
                (Some(path), ..) => {
                    let file =
                        FlvFile::open(path).map_err(|e| PlanError::File(g.name.clone(), e))?;
                    Some(Content::File(Arc::new(Reference::new(&file))))
                }
                (None, _, Ok(stream)) => Some(Content::Generated { stream: Some(stream) }),
                (None, true, Err(_)) => Some(Content::Generated { stream: None }),
                (None, false, Err(_)) => None,
            };
            groups.push(Group {
                what: What::Play { group: Box::new(g.clone()), content },
                ..group(
                    Role::Play,
                    &g.name,
                    &g.url,
                    g.clients,
                    &g.sources,
                    (g.start, g.stop, g.ramp),
                )?
            });
        }
        let start = clock::now() + LEAD_NS;
        let end = start + clock::seconds(plan.seconds);
        let epoch_base = (start / 1_000_000) as u32;
        Ok(Job { plan, groups, start, end, epoch_base, streams })
    }

    /// What a player of this target must see.
    pub fn content(
        &self,
        group: &PlayGroup,
        own: Option<&Content>,
        n: u32,
        target: &Target,
    ) -> Content {
        match own {
            Some(Content::Generated { stream: Some(base) }) if group.url.contains("{n}") => {
                Content::Generated { stream: Some(base + n) }
            }
            Some(content) => content.clone(),
            None => self.streams.get(&stream_key(target)).cloned().unwrap_or(Content::Unknown),
        }
    }
}

fn target(name: &str, url: &str, n: u32) -> Result<Target, PlanError> {
    Target::parse(&expand(url, n)).map_err(|e| PlanError::Url(name.to_owned(), e))
}

/// App and stream of a target, whatever the protocol: a stream is played under the name it was
/// published by.
fn stream_key(target: &Target) -> (String, String) {
    let stream = target.stream().split('?').next().unwrap_or_default();
    let name = stream.trim_end_matches(".flv").trim_end_matches(".m3u8");
    (target.app().to_owned(), name.to_owned())
}

fn group(
    role: Role,
    name: &str,
    url: &str,
    clients: u32,
    sources: &[IpAddr],
    (start, stop, ramp): (f64, Option<f64>, f64),
) -> Result<Group, PlanError> {
    let first = target(name, url, 0)?;
    let address = first.resolve().map_err(|e| PlanError::Resolve(name.to_owned(), e))?;
    let mut sources = sources.to_vec();
    if sources.is_empty()
        && address.is_ipv4()
        && address.ip().is_loopback()
        && clients > PLAYERS_PER_SOURCE
    {
        let n = clients.div_ceil(PLAYERS_PER_SOURCE).min(250) as u8;
        sources = (0..n).map(|i| IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + i))).collect();
    }
    let head = GroupHead {
        name: name.to_owned(),
        role,
        protocol: first.scheme.name(),
        url: url.to_owned(),
        clients,
    };
    // Replaced by the caller, who knows what the group does.
    let what = What::Play { group: Box::default(), content: None };
    let (from, to) = (clock::seconds(start), stop.map(clock::seconds));
    Ok(Group { head, address, sources, from, to, ramp, what })
}
