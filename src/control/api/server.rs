//! Speaks HTTP for the API: listeners, TLS, and bounds on what a client can cost.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::Response;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

use super::reply::{Reply, ReplyBody};
use super::stats::{ApiStats, Refusal};
use super::{Api, Ask, NoAnswer, Port};
use crate::control::tls::Identity;
use crate::fault::Fault;
use crate::hub::Reason;
use crate::limits;
use crate::shard::Guest;

/// Connections of all ports of the API, by address.
#[derive(Debug)]
pub struct Guests {
    state: Mutex<(usize, HashMap<IpAddr, usize>)>,
    stats: Arc<ApiStats>,
}

/// One connection's place among them.
struct Place {
    guests: Arc<Guests>,
    ip: IpAddr,
}

impl Guests {
    /// Nobody yet. They are counted in `stats`.
    pub fn new(stats: Arc<ApiStats>) -> Guests {
        Guests { state: Mutex::default(), stats }
    }

    fn admit(self: &Arc<Guests>, ip: IpAddr) -> Option<Place> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_address) = &mut *state;
        let own = by_address.entry(ip).or_default();
        let refusal = match (*all, *own) {
            (limits::API_CONNECTIONS_MAX.., _) => Some(Refusal::Connections),
            (_, limits::API_CONNECTIONS_PER_ADDRESS_MAX..) => Some(Refusal::Address),
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.stats.refuse(refusal);
            if *own == 0 {
                by_address.remove(&ip);
            }
            return None;
        }
        *all += 1;
        *own += 1;
        self.stats.connections.store(*all, Relaxed);
        self.stats.accepted.fetch_add(1, Relaxed);
        Some(Place { guests: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.guests.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_address) = &mut *state;
        *all -= 1;
        self.guests.stats.connections.store(*all, Relaxed);
        if let Some(own) = by_address.get_mut(&self.ip) {
            *own -= 1;
            if *own == 0 {
                by_address.remove(&self.ip);
            }
        }
    }
}

/// One port of the API.
#[derive(Debug)]
pub struct Door {
    /// What is served there.
    pub port: Port,
    /// Bound already.
    pub listener: std::net::TcpListener,
    /// For HTTPS.
    pub tls: Option<Arc<Identity>>,
}

/// Serves the API at a door. Ends with the control thread.
pub async fn serve(door: Door, api: Arc<Api>, guests: Arc<Guests>) {
    let addr = door.listener.local_addr().ok();
    let listener = match TcpListener::from_std(door.listener) {
        Ok(listener) => listener,
        Err(why) => {
            return tracing::error!(
                reason = Fault::PartFailed.name(),
                ?addr,
                "the HTTP API cannot be served: {why}"
            );
        }
    };
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                // Out of descriptors, or a peer that left again: others may come.
                tracing::warn!(
                    reason = Reason::AcceptFailed.name(),
                    ?addr,
                    "accepting a connection of the HTTP API failed: {why}"
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = guests.admit(peer.ip().to_canonical()) else {
            tracing::debug!(%peer, "too many connections of the HTTP API");
            continue;
        };
        let (api, tls, port) = (api.clone(), door.tls.clone(), door.port);
        tokio::task::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            match tls {
                None => converse(Patient::new(stream), (peer, false), port, &api).await,
                Some(tls) => {
                    let handshake = tls.acceptor().accept(Patient::new(stream));
                    match tokio::time::timeout(HANDSHAKE, handshake).await {
                        Ok(Ok(stream)) => converse(stream, (peer, true), port, &api).await,
                        Ok(Err(why)) => {
                            api.stats.refuse(Refusal::Tls);
                            tracing::debug!(%peer, "TLS of the HTTP API: {why}");
                        }
                        Err(_) => {
                            api.stats.refuse(Refusal::Tls);
                            tracing::debug!(%peer, "TLS of the HTTP API: too slow");
                        }
                    }
                }
            }
        });
    }
}

/// Goes on with a connection that a shard has begun to read.
pub async fn take_over(guest: Guest, api: Arc<Api>, guests: Arc<Guests>) {
    // The front hears of the end when the passage is dropped.
    let Guest { socket, peer, read, passage } = guest;
    let stream = std::net::TcpStream::from(socket);
    let Some(_place) = guests.admit(peer.ip().to_canonical()) else { return };
    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    match stream {
        Ok(stream) => {
            let stream = Patient { read, ..Patient::new(stream) };
            converse(stream, (peer, passage.is_some()), Port::Shared, &api).await;
        }
        Err(why) => tracing::warn!(reason = Fault::SystemFailed.name(), %peer,
            "a connection cannot be taken over: {why}"),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (peer, secure): (SocketAddr, bool),
    port: Port,
    api: &Arc<Api>,
) {
    let service = service_fn(|request| answer(request, (peer, secure), port, api));
    let result = http1::Builder::new()
        // What comes next on a port that is shared may be for the streams: a client asks again.
        .keep_alive(port != Port::Shared)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(limits::HTTP_HEAD_BYTES_MAX)
        .max_headers(limits::HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(why) = result {
        if why.is_parse() || why.is_timeout() || why.is_incomplete_message() {
            api.stats.refuse(Refusal::Request);
        }
        tracing::debug!(%peer, "connection of the HTTP API: {why}");
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    (peer, secure): (SocketAddr, bool),
    port: Port,
    api: &Api,
) -> Result<Response<ReplyBody>, NoAnswer> {
    let reply = match too_long(&request) {
        Some(reply) => {
            api.stats.refuse(Refusal::TooLong);
            reply
        }
        None => {
            let uri = request.uri();
            let ask = Ask {
                port,
                peer,
                secure,
                method: request.method(),
                path: uri.path(),
                query: uri.query().unwrap_or_default(),
                headers: request.headers(),
            };
            tracing::debug!(%peer, method = %ask.method, path = ?ask.path, "API request");
            api.answer(&ask).await?
        }
    };
    let response = reply.into_http(&api.stats);
    api.stats.answer(response.status().as_u16());
    Ok(response)
}

fn too_long(request: &hyper::Request<Incoming>) -> Option<Reply> {
    // No route reads a body. A small one is left behind: hyper then ends the connection.
    if request.body().size_hint().lower() > limits::API_BODY_BYTES_MAX {
        return Some(Reply::text(413, "413 Content Too Large\n"));
    }
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    (target > limits::HTTP_TARGET_BYTES_MAX).then(|| Reply::text(414, "414 URI Too Long\n"))
}

/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a request's head, and between two requests (SRS: 15 s).
const HEAD: Duration = Duration::from_secs(15);
/// Time in which a client has to take something of what it is sent.
const STALL: Duration = Duration::from_secs(30);

/// A socket whose peer has to read: a client that asks and does not take the answer is let go.
struct Patient {
    stream: TcpStream,
    /// What was read of it before.
    read: Bytes,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Patient {
        Patient { stream, read: Bytes::new(), stalled: None }
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let len = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read[..len]);
        self.read.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_are_bounded_by_address_and_in_all() {
        let guests = Arc::new(Guests::new(Arc::default()));
        let ip = |n: u32| IpAddr::V4(n.into());
        let own: Vec<_> = (0..limits::API_CONNECTIONS_PER_ADDRESS_MAX)
            .map(|_| guests.admit(ip(1)).expect("there is room"))
            .collect();
        assert!(guests.admit(ip(1)).is_none());
        let mut others = Vec::new();
        while let Some(place) = guests.admit(ip(2 + others.len() as u32)) {
            others.push(place);
        }
        assert_eq!(own.len() + others.len(), limits::API_CONNECTIONS_MAX);
        drop(own);
        assert!(guests.admit(ip(1)).is_some());
        drop(others);
        let state = guests.state.lock().unwrap();
        assert_eq!((state.0, state.1.len()), (0, 0));
        let refused: Vec<_> = guests.stats.refused().filter(|(_, n)| *n > 0).collect();
        assert_eq!(refused, [("connections", 1), ("address", 1)]);
        assert_eq!(guests.stats.connections.load(Relaxed), 0);
    }
}
