//! Hooks about segments of HLS: on_hls tells, on_hls_notify fetches so that a CDN has the segment.
//! Both are done once; what goes wrong is counted and said in the log.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

use super::{Hooks, body, without_query};
use crate::control::client::CallError;
use crate::hub::Reason;
use crate::hub::segments::Segment;
use crate::limits::{HOOK_ANSWER_MAX, HOOK_ENDS_IN_FLIGHT};
use crate::proto::http::url::percent_encode;
use crate::remux::Client;
use crate::version;

impl Hooks {
    /// Works for as long as the control thread runs; `news` says that there are segments.
    pub(super) async fn tell_of_segments(self: Rc<Self>, news: Arc<Notify>) {
        let desk = self.parts.admission.desk.clone();
        let slots = Arc::new(Semaphore::new(HOOK_ENDS_IN_FLIGHT));
        loop {
            // Nobody closes it. Segments wait in their bounded queue until there is a slot.
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let Some((client, segment)) = desk.take_segment() else {
                drop(slot);
                news.notified().await;
                continue;
            };
            let hooks = self.clone();
            tokio_uring::spawn(async move {
                hooks.tell_of_segment(&client, &segment).await;
                drop(slot);
            });
        }
    }

    async fn tell_of_segment(&self, client: &Client, segment: &Segment) {
        let config = (self.parts.config)();
        let vhost = config.vhost(client.stream.name.vhost());
        let hooks = &vhost.http_hooks;
        if !hooks.enabled {
            return;
        }
        let stream = version::id_of(client.stream.name.key());
        for url in &hooks.on_hls {
            let json = body::segment(client, segment, vhost, &stream);
            let why = match self.request(url, Some(json), hooks, HOOK_ANSWER_MAX).await {
                Ok(answer) if body::accepts(answer.status, &answer.body) => continue,
                Ok(answer) => format!("status {}", answer.status),
                Err(why) => why.to_string(),
            };
            self.complain("on_hls", url, client, &why);
        }
        for url in &hooks.on_hls_notify {
            let url = fill(url, client, segment);
            let answer_max = vhost.hls.hls_nb_notify as usize;
            match self.request(&url, None, hooks, answer_max).await {
                // The CDN has asked for the segment by the time it answers at all.
                Ok(_) | Err(CallError::TooLong(_)) => {}
                Err(why) => self.complain("on_hls_notify", &url, client, &why.to_string()),
            }
        }
    }

    fn complain(&self, hook: &str, url: &str, client: &Client, why: &str) {
        self.parts.counters.count(Reason::SegmentNotTold);
        self.grumble.say(url, |more| {
            let reason = Reason::SegmentNotTold.name();
            tracing::warn!(reason, id = %client.id, url = without_query(url), more,
                "{hook}: {why}; the segment is there all the same");
        });
    }
}

/// The URL of on_hls_notify for one segment.
fn fill(url: &str, client: &Client, segment: &Segment) -> String {
    let name = &client.stream.name;
    let param = client.urls.param();
    [
        ("[server_id]", version::server_id()),
        ("[service_id]", version::service_id()),
        ("[app]", name.app()),
        ("[stream]", name.stream()),
        ("[ts_url]", &crate::proto::http::url::encode_path(&segment.name)),
        ("[param]", &percent_encode(param.strip_prefix('?').unwrap_or(param))),
    ]
    .iter()
    .fold(url.to_owned(), |url, (word, value)| url.replace(word, value))
}
