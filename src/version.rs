//! Name, version and identity of this process, as peers see them.

use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, OnceLock};

use sha2::{Digest, Sha256};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `Server` headers and metadata say.
pub const SERVER: &str = concat!("ringcast/", env!("CARGO_PKG_VERSION"));

const ID_DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Id of the server and of this run of it, in SRS's form: `vid-` and 7, and 8 characters.
static IDS: LazyLock<(String, String)> = LazyLock::new(|| {
    // The hasher's keys come from the system's random numbers; ids need to differ, not to be
    // secret.
    let text = |salt: u64, len: usize| -> String {
        let mut bits = RandomState::new().hash_one(salt);
        (0..len)
            .map(|_| {
                let c = ID_DIGITS[(bits % 36) as usize];
                bits /= 36;
                char::from(c)
            })
            .collect()
    };
    (format!("vid-{}", text(1, 7)), text(2, 8))
});

/// Id of the server.
pub fn server_id() -> &'static str {
    SERVER_ID.get().map_or(&IDS.0, String::as_str)
}

/// Id of this run of it.
pub fn service_id() -> &'static str {
    &IDS.1
}

/// Sets the id of the server, once, before anybody asks. Without, it is another with each run.
pub fn set_server_id(id: String) {
    let _ = SERVER_ID.set(id);
}

static SERVER_ID: OnceLock<String> = OnceLock::new();

/// Id of a vhost (by its name) or a stream (by its whole name) in the API and in hooks, in SRS's
/// form. It follows from the name and the server's id, so it is known before the stream is there.
pub fn id_of(name: &str) -> String {
    let digest = Sha256::new().chain_update(server_id()).chain_update("/").chain_update(name);
    let digest = digest.finalize();
    let mut bits = digest.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut id = String::from("vid-");
    for _ in 0..7 {
        id.push(char::from(ID_DIGITS[(bits % 36) as usize]));
        bits /= 36;
    }
    id
}

/// The answer of `/api/v1/versions`, the same on every port that has it.
pub fn versions_json() -> String {
    let (server, service) = (server_id(), service_id());
    let pid = std::process::id();
    let mut parts = VERSION.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let (major, minor, revision) = (next(), next(), next());
    format!(
        "{{\"code\":0,\"server\":\"{server}\",\"service\":\"{service}\",\"pid\":\"{pid}\",\
         \"data\":{{\"major\":{major},\"minor\":{minor},\"revision\":{revision},\
         \"version\":\"{VERSION}\"}}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_names() {
        let id = id_of("a.com/live/s");
        assert_eq!(id, id_of("a.com/live/s"));
        assert_ne!(id, id_of("a.com/live/t"));
        let (front, digits) = id.split_at(4);
        assert_eq!((front, digits.len()), ("vid-", 7));
        assert!(digits.bytes().all(|digit| ID_DIGITS.contains(&digit)));
    }
}
