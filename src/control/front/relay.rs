//! Passes bytes on between a client and the server's own port, decrypted there and encrypted here.
//!
//! Each way has one buffer, and nothing is read while it is full: a client that reads slowly fills
//! it, then the socket to the shard, and the shard sees a slow player as it sees every other.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::stats::{FrontStats, Refusal};
use crate::limits;
use crate::shard::relayed::Announced;

/// How one way ended.
#[derive(Debug)]
enum Ended {
    /// Who sent is done, and who receives was told so.
    Well,
    /// Who sent is gone.
    Reading(#[expect(dead_code, reason = "for the log")] io::Error),
    /// Who receives is gone.
    Writing(#[expect(dead_code, reason = "for the log")] io::Error),
}

/// Passes bytes on both ways until one of the two is done. `own` is the connection to the server.
pub(super) async fn run(
    client: impl AsyncRead + AsyncWrite,
    own: impl AsyncRead + AsyncWrite,
    announced: &Announced,
    stats: &FrontStats,
) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_own, to_own) = tokio::io::split(own);
    let up = pump(from_client, to_own, limits::RELAY_UP_BYTES, &stats.bytes_up);
    let down = pump(from_own, to_client, limits::RELAY_DOWN_BYTES, &stats.bytes_down);
    let patience = async {
        announced.over().await;
        // The shard has closed; what it sent before is the client's, if it takes it in time.
        tokio::time::sleep(Duration::from_millis(limits::REPLY_MS_MAX)).await;
    };
    tokio::pin!(up, down, patience);
    let mut listening = true;
    loop {
        tokio::select! {
            ended = &mut down => {
                // A client that is told of the end gets a moment to read it: closing while bytes
                // of it are unread would take back what it has not read.
                if listening && matches!(ended, Ended::Well) {
                    let farewell = Duration::from_millis(limits::TLS_FAREWELL_MS_MAX);
                    let _ = tokio::time::timeout(farewell, &mut up).await;
                }
                return tracing::debug!(?ended, "the front is done with a connection");
            }
            ended = &mut up, if listening => match ended {
                // The server does not want more; what it has said before is still to be read.
                Ended::Well | Ended::Writing(_) => listening = false,
                Ended::Reading(_) => {
                    return tracing::debug!(?ended, "a client of the front is gone");
                }
            },
            () = &mut patience => return stats.refuse(Refusal::Stalled),
        }
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: usize,
    count: &AtomicU64,
) -> Ended {
    let mut buffer = vec![0; bytes];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(why) => return Ended::Reading(why),
        };
        // What was encrypted may wait in TLS's own buffer: it has to be out before more is read.
        let written = match to.write_all(&buffer[..read]).await {
            Ok(()) => to.flush().await,
            Err(why) => Err(why),
        };
        if let Err(why) = written {
            return Ended::Writing(why);
        }
        count.fetch_add(read as u64, Relaxed);
    }
    match to.shutdown().await {
        Ok(()) => Ended::Well,
        Err(why) => Ended::Writing(why),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::shard::relayed::{Passage, Relayed};

    /// A client, the server's end, and the relay between them.
    struct Scene {
        client: DuplexStream,
        own: DuplexStream,
        passage: Passage,
        relay: JoinHandle<()>,
        stats: Arc<FrontStats>,
    }

    fn scene() -> Scene {
        let relayed = Arc::new(Relayed::new(1));
        let from = ([127, 0, 0, 1], 1).into();
        let announced = relayed.announce(from, ([192, 0, 2, 1], 1).into()).unwrap();
        let passage = relayed.take(from).unwrap();
        let (client, near) = duplex(1024);
        let (own, far) = duplex(1024);
        let stats = Arc::new(FrontStats::default());
        let counted = stats.clone();
        let relay = tokio::spawn(async move { run(near, far, &announced, &counted).await });
        Scene { client, own, passage, relay, stats }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_both_ways_and_ends_are_passed_on() {
        let mut scene = scene();
        scene.client.write_all(b"question").await.unwrap();
        let mut question = [0; 8];
        scene.own.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"question");
        // The client has asked everything; the answer still comes, whole.
        scene.client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        scene.own.read_to_end(&mut rest).await.unwrap();
        let answer: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let sent = answer.clone();
        let Scene { mut client, mut own, passage, relay, stats } = scene;
        let server = tokio::spawn(async move {
            own.write_all(&sent).await.unwrap();
            drop((own, passage));
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert!(rest.is_empty() && got == answer);
        server.await.unwrap();
        relay.await.unwrap();
        assert_eq!(stats.bytes_down.load(Relaxed), 200_000);
        assert_eq!(stats.bytes_up.load(Relaxed), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_holds_the_server_back() {
        let Scene { mut client, mut own, passage, relay, stats } = scene();
        let much = vec![7; 1 << 20];
        // What fits: both pipes, and what the relay has read of one.
        let all = timeout(Duration::from_secs(60), own.write_all(&much)).await;
        assert!(all.is_err(), "the server could write a megabyte to a client that reads nothing");
        assert!(stats.bytes_down.load(Relaxed) <= (limits::RELAY_DOWN_BYTES + 2048) as u64);
        // It reads again, and nothing is lost; then it stalls, and the server closes.
        let mut some = vec![0; 2000];
        client.read_exact(&mut some).await.unwrap();
        assert!(some.iter().all(|byte| *byte == 7) && !relay.is_finished());
        let closed_at = Instant::now();
        drop((own, passage));
        relay.await.unwrap();
        assert!(closed_at.elapsed() >= Duration::from_millis(limits::REPLY_MS_MAX));
        let stalled: Vec<_> = stats.refused().filter(|(_, n)| *n > 0).collect();
        assert_eq!(stalled, [("stalled", 1)]);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_missed_at_once() {
        let Scene { client, mut own, passage, relay, .. } = scene();
        drop(client);
        let mut rest = Vec::new();
        own.read_to_end(&mut rest).await.unwrap();
        drop((own, passage));
        timeout(Duration::from_secs(1), relay).await.expect("an end").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_closes_is_let_go() {
        let Scene { mut client, own, passage, relay, .. } = scene();
        drop((own, passage));
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "it is told of the end");
        let told_at = Instant::now();
        relay.await.unwrap();
        assert!(told_at.elapsed() <= Duration::from_millis(limits::TLS_FAREWELL_MS_MAX));
    }
}
