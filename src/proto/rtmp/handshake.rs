//! The handshake, from both ends.
//!
//! ```text
//! client  C0 C1 ------------>            C0, S0  1 byte     version 3
//!                <-- S0 S1 S2   server   C1, S1  1536 bytes time, version, filling
//!         C2    ------------>            C2, S2  1536 bytes an echo of the other side's
//! ```
//!
//! The complex form hides an HMAC-SHA256 digest in the filling of C1 and S1, at a place that four
//! bytes of the filling name, in one of two blocks of 764 bytes; and S2 and C2 end with a digest
//! that proves that the other one was found. Schema 0 has the key block first, schema 1 the digest
//! block. Flash wants it before it plays H.264. A C1 without a valid digest is a simple handshake.

use std::net::Ipv4Addr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::error::{Error, Limit, Misbehaved, Unsupported};
use crate::limits::RTMP_PROXY_PREFIX_MAX;

/// Bytes of C1, C2, S1 and S2.
pub(super) const PART: usize = 1536;

const VERSION: u8 = 3;
/// First byte of what a proxy puts before C0 to tell the client's address.
const PROXY: u8 = 0xF3;
const DIGEST: usize = 32;
const BLOCK: usize = 764;
const SERVER_VERSION: [u8; 4] = [0x01, 0x00, 0x05, 0x04];
const CLIENT_VERSION: [u8; 4] = [0x80, 0x00, 0x07, 0x02];

/// The key of servers is the text and the tail, together 68 bytes; S1 is signed with the text
/// alone.
const SERVER_TEXT: &[u8] = b"Genuine Adobe Flash Media Server 001";
/// The key of clients, together 62 bytes; C1 is signed with the text alone.
const CLIENT_TEXT: &[u8] = b"Genuine Adobe Flash Player 001";
const KEY_TAIL: [u8; 32] = [
    0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57,
    0x6E, 0xEC, 0x5D, 0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
];

/// Which block holds the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Schema {
    KeyFirst,
    DigestFirst,
}

/// The server's half.
#[derive(Debug)]
pub(super) struct ServerHandshake {
    /// What came before and with C0 and C1, at most a prefix and 1537 bytes.
    received: Vec<u8>,
    /// Bytes of C2 still to come, once the reply is out; C2 is never looked at.
    c2_left: Option<usize>,
    epoch_ms: u32,
    random: Random,
    pub(super) proxied_ip: Option<Ipv4Addr>,
}

impl ServerHandshake {
    pub(super) fn new(epoch_ms: u32, seed: u64) -> ServerHandshake {
        let random = Random(seed);
        ServerHandshake { received: Vec::new(), c2_left: None, epoch_ms, random, proxied_ip: None }
    }

    /// Consumes input; true when the handshake is over and chunks follow.
    pub(super) fn step(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<bool, Error> {
        let c2_left = match self.c2_left {
            Some(left) => left,
            None => {
                let Some(start) = self.receive_c1(input)? else { return Ok(false) };
                let received = std::mem::take(&mut self.received);
                self.reply(&received[start..], output)?;
                PART
            }
        };
        let skipped = input.len().min(c2_left);
        *input = &input[skipped..];
        self.c2_left = Some(c2_left - skipped);
        Ok(c2_left == skipped)
    }

    /// Gathers the prefix, C0 and C1; the index of C0 when they are complete.
    fn receive_c1(&mut self, input: &mut &[u8]) -> Result<Option<usize>, Error> {
        loop {
            let prefix = self.prefix_len()?;
            let missing =
                prefix.map_or(3, |len| len + 1 + PART).saturating_sub(self.received.len());
            if missing == 0 {
                let start = prefix.unwrap_or(0);
                if let Some(ip) = self.received[..start].get(3..7) {
                    self.proxied_ip = Some(Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]));
                }
                return Ok(Some(start));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(input.len().min(missing));
            self.received.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// Length of the proxy prefix, or nothing while that cannot be told.
    fn prefix_len(&self) -> Result<Option<usize>, Error> {
        match self.received[..] {
            [] => Ok(Some(0)),
            [PROXY, high, low, ..] => {
                let len = u16::from_be_bytes([high, low]);
                if usize::from(len) > RTMP_PROXY_PREFIX_MAX {
                    return Err(Limit::ProxyPrefix(len).into());
                }
                Ok(Some(3 + usize::from(len)))
            }
            [PROXY, ..] => Ok(None),
            _ => Ok(Some(0)),
        }
    }

    fn reply(&mut self, c0c1: &[u8], output: &mut Vec<u8>) -> Result<(), Error> {
        let (c0, c1) = (c0c1[0], &c0c1[1..]);
        let found = find_digest(c1, CLIENT_TEXT);
        // SRS: the version is only looked at when there is no digest.
        if found.is_none() && c0 != VERSION {
            return Err(Unsupported::Version(c0).into());
        }
        output.push(VERSION);
        let mut s1 = self.random.filling();
        s1[..4].copy_from_slice(&self.epoch_ms.to_be_bytes());
        match found {
            Some((schema, digest)) => {
                s1[4..8].copy_from_slice(&SERVER_VERSION);
                sign(&mut s1, schema, SERVER_TEXT);
                output.extend_from_slice(&s1);
                let mut s2 = self.random.filling();
                answer(&mut s2, SERVER_TEXT, &digest);
                output.extend_from_slice(&s2);
            }
            None => {
                s1[4..8].copy_from_slice(&c1[..4]);
                output.extend_from_slice(&s1);
                output.extend_from_slice(c1);
            }
        }
        Ok(())
    }
}

/// The client's half.
#[derive(Debug)]
pub(super) struct ClientHandshake {
    /// S0, S1 and S2 so far.
    received: Vec<u8>,
    complex: bool,
    random: Random,
}

impl ClientHandshake {
    /// Appends C0 and C1 to the output.
    pub(super) fn new(complex: bool, seed: u64, output: &mut Vec<u8>) -> ClientHandshake {
        let mut random = Random(seed);
        let mut c1 = random.filling();
        c1[..8].fill(0);
        if complex {
            c1[4..8].copy_from_slice(&CLIENT_VERSION);
            sign(&mut c1, Schema::DigestFirst, CLIENT_TEXT);
        }
        output.push(VERSION);
        output.extend_from_slice(&c1);
        ClientHandshake { received: Vec::new(), complex, random }
    }

    /// Consumes input; true when the handshake is over, with C2 in the output.
    pub(super) fn step(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Result<bool, Error> {
        let missing = 1 + 2 * PART - self.received.len();
        let (taken, rest) = input.split_at(input.len().min(missing));
        self.received.extend_from_slice(taken);
        *input = rest;
        if let Some(&version) = self.received.first()
            && version != VERSION
        {
            return Err(Misbehaved::ServerVersion(version).into());
        }
        if taken.len() < missing {
            return Ok(false);
        }
        let s1 = &self.received[1..1 + PART];
        match find_digest(s1, SERVER_TEXT).filter(|_| self.complex) {
            Some((_, digest)) => {
                let mut c2 = self.random.filling();
                answer(&mut c2, CLIENT_TEXT, &digest);
                output.extend_from_slice(&c2);
            }
            // A server that does not know the complex form echoes C1 and wants an echo.
            None => output.extend_from_slice(s1),
        }
        Ok(true)
    }
}

/// Where the digest of a part is: the sum of four bytes modulo what the block has room for.
fn digest_at(part: &[u8], schema: Schema) -> usize {
    let block = match schema {
        Schema::KeyFirst => 8 + BLOCK,
        Schema::DigestFirst => 8,
    };
    let sum: usize = part[block..block + 4].iter().map(|&byte| usize::from(byte)).sum();
    block + 4 + sum % (BLOCK - 4 - DIGEST)
}

/// The digest of a part and where it is, when it is valid.
fn find_digest(part: &[u8], key: &[u8]) -> Option<(Schema, [u8; DIGEST])> {
    [Schema::KeyFirst, Schema::DigestFirst].into_iter().find_map(|schema| {
        let at = digest_at(part, schema);
        let digest = hmac(key, &part[..at], &part[at + DIGEST..]);
        (part[at..at + DIGEST] == digest).then_some((schema, digest))
    })
}

/// Puts the digest of a part where it belongs.
fn sign(part: &mut [u8; PART], schema: Schema, key: &[u8]) {
    let at = digest_at(part, schema);
    let digest = hmac(key, &part[..at], &part[at + DIGEST..]);
    part[at..at + DIGEST].copy_from_slice(&digest);
}

/// Ends S2 or C2 with the proof that the other side's digest was found.
fn answer(part: &mut [u8; PART], text: &[u8], digest: &[u8; DIGEST]) {
    let mut key = text.to_vec();
    key.extend_from_slice(&KEY_TAIL);
    let key = hmac(&key, digest, &[]);
    let proof = hmac(&key, &part[..PART - DIGEST], &[]);
    part[PART - DIGEST..].copy_from_slice(&proof);
}

fn hmac(key: &[u8], first: &[u8], second: &[u8]) -> [u8; DIGEST] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(first);
    mac.update(second);
    mac.finalize().into_bytes().into()
}

/// SplitMix64. The filling needs to differ between connections, not to be a secret.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn filling(&mut self) -> [u8; PART] {
        let mut bytes = [0; PART];
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A C1 whose digest was computed by another implementation (Python's hmac), and the answer it
    /// has to get for a filling of `index * 3`.
    struct Vector {
        schema: Schema,
        at: usize,
        digest: &'static str,
        proof: &'static str,
    }

    const VECTORS: [Vector; 2] = [
        Vector {
            schema: Schema::KeyFirst,
            at: 930,
            digest: "c1f8a653abd40fa9c64fd1409605c2605cd0a5f092e8e12fcdbeed20c143cb81",
            proof: "9b96ced61cda6eb292b7d1cce8eec9a80e57d55e51039c44e75a191544b6cb77",
        },
        Vector {
            schema: Schema::DigestFirst,
            at: 278,
            digest: "10a19074a5ce4699edbd7bb14b4519762d742302d4e639d6d47f48fff3ad56f2",
            proof: "8276660b5b20563396f8b3fe8dfb5ea328c9b622ecd5aba17da894947b8be62a",
        },
    ];

    fn hex(text: &str) -> [u8; DIGEST] {
        std::array::from_fn(|index| u8::from_str_radix(&text[2 * index..][..2], 16).unwrap())
    }

    fn filling(factor: usize) -> [u8; PART] {
        std::array::from_fn(|index| (index * factor) as u8)
    }

    fn c0c1(c0: u8, vector: &Vector) -> Vec<u8> {
        let mut c1 = filling(7);
        c1[vector.at..vector.at + DIGEST].copy_from_slice(&hex(vector.digest));
        [&[c0][..], &c1].concat()
    }

    fn server() -> ServerHandshake {
        ServerHandshake::new(0x0102_0304, 5)
    }

    /// Feeds in pieces; the output, and whether the handshake is over.
    fn feed(server: &mut ServerHandshake, bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
        let (mut output, mut done) = (Vec::new(), false);
        for mut piece in bytes.chunks(piece) {
            assert!(!done);
            done = server.step(&mut piece, &mut output).unwrap();
            assert!(piece.is_empty());
        }
        (output, done)
    }

    #[test]
    fn digests_agree_with_another_implementation() {
        for vector in &VECTORS {
            let c1 = &c0c1(3, vector)[1..];
            assert_eq!(digest_at(c1, vector.schema), vector.at);
            assert_eq!(find_digest(c1, CLIENT_TEXT), Some((vector.schema, hex(vector.digest))));
            let mut signed = filling(7);
            sign(&mut signed, vector.schema, CLIENT_TEXT);
            assert_eq!(signed, c1);
            let mut s2 = filling(3);
            answer(&mut s2, SERVER_TEXT, &hex(vector.digest));
            assert_eq!(s2[PART - DIGEST..], hex(vector.proof));
        }
    }

    #[test]
    fn a_digest_is_answered_by_the_same_schema_whatever_the_version() {
        for vector in &VECTORS {
            for (c0, piece) in [(3, 1), (3, 5000), (6, 100)] {
                let (s, done) = feed(&mut server(), &c0c1(c0, vector), piece);
                assert!(!done, "C2 is missing");
                assert_eq!(s.len(), 1 + 2 * PART);
                assert_eq!(s[..9], [3, 1, 2, 3, 4, 1, 0, 5, 4]);
                let (s1, s2) = s[1..].split_at(PART);
                let (schema, _) = find_digest(s1, SERVER_TEXT).unwrap();
                assert_eq!(schema, vector.schema);
                let mut expected: [u8; PART] = s2.try_into().unwrap();
                answer(&mut expected, SERVER_TEXT, &hex(vector.digest));
                assert_eq!(s2, expected);
            }
        }
    }

    #[test]
    fn without_a_digest_the_parts_are_echoed() {
        let c1 = filling(7);
        let bytes = [&[3][..], &c1].concat();
        let (s, _) = feed(&mut server(), &bytes, 700);
        assert_eq!(s[..5], [3, 1, 2, 3, 4]);
        assert_eq!(s[5..9], c1[..4]);
        assert_eq!(s[1 + PART..], c1);
        let error = server().step(&mut &[&[6][..], &c1].concat()[..], &mut Vec::new());
        assert_eq!(error, Err(Unsupported::Version(6).into()));
    }

    #[test]
    fn nothing_is_sent_before_c1_and_nothing_is_taken_after_c2() {
        let bytes = [&[3][..], &filling(7), &[0xEE; PART], b"next"].concat();
        for split in [1, 1536, 1537, 1538, 3072, 3073] {
            let (mut server, mut output) = (server(), Vec::new());
            let (mut first, mut second) = bytes.split_at(split);
            let done = server.step(&mut first, &mut output).unwrap();
            assert_eq!(output.is_empty(), split < 1537);
            assert_eq!(done, split == 3073);
            if !done {
                assert!(server.step(&mut second, &mut output).unwrap());
            }
            assert_eq!(second, b"next");
            assert_eq!(output.len(), 1 + 2 * PART);
        }
    }

    #[test]
    fn a_proxy_may_tell_the_address() {
        let rest = c0c1(3, &VECTORS[1]);
        for (payload, ip) in [
            (&[][..], None),
            (&[9, 9, 9], None),
            (&[10, 1, 2, 3], Some(Ipv4Addr::new(10, 1, 2, 3))),
            (&[10, 1, 2, 3, 0, 0, 7, 8], Some(Ipv4Addr::new(10, 1, 2, 3))),
        ] {
            let bytes = [&[PROXY, 0, payload.len() as u8][..], payload, &rest].concat();
            for piece in [1, 2, 5, 1540, 4000] {
                let mut server = server();
                let (s, _) = feed(&mut server, &bytes, piece);
                assert_eq!(server.proxied_ip, ip);
                assert!(find_digest(&s[1..1 + PART], SERVER_TEXT).is_some());
            }
        }
        let bytes = [&[PROXY, 4, 0][..], &[0; 1024], &rest].concat();
        assert_eq!(feed(&mut server(), &bytes, 100).0.len(), 1 + 2 * PART);
        let error = server().step(&mut &[PROXY, 4, 1][..], &mut Vec::new());
        assert_eq!(error, Err(Limit::ProxyPrefix(1025).into()));
    }

    #[test]
    fn the_client_signs_by_schema_1_and_proves_what_it_found() {
        let mut sent = Vec::new();
        let mut client = ClientHandshake::new(true, 1, &mut sent);
        assert_eq!(sent.len(), 1 + PART);
        assert_eq!(sent[..9], [3, 0, 0, 0, 0, 0x80, 0, 7, 2]);
        let (schema, _) = find_digest(&sent[1..], CLIENT_TEXT).unwrap();
        assert_eq!(schema, Schema::DigestFirst);
        let (reply, _) = feed(&mut server(), &sent, usize::MAX);
        let mut c2 = Vec::new();
        assert!(client.step(&mut &reply[..], &mut c2).unwrap());
        let (_, digest) = find_digest(&reply[1..1 + PART], SERVER_TEXT).unwrap();
        let mut expected: [u8; PART] = c2[..].try_into().unwrap();
        answer(&mut expected, CLIENT_TEXT, &digest);
        assert_eq!(c2, expected);
    }

    #[test]
    fn the_client_echoes_servers_without_digests_and_needs_their_version() {
        for complex in [false, true] {
            let mut sent = Vec::new();
            let mut client = ClientHandshake::new(complex, 1, &mut sent);
            let reply = [&[3][..], &filling(7), &sent[1..], b"next"].concat();
            let (mut c2, mut input) = (Vec::new(), &reply[..]);
            assert!(client.step(&mut input, &mut c2).unwrap());
            assert_eq!((input, &c2[..]), (&b"next"[..], &filling(7)[..]));
        }
        let mut client = ClientHandshake::new(false, 1, &mut Vec::new());
        let error = client.step(&mut &b"HTTP/1.1"[..], &mut Vec::new());
        assert_eq!(error, Err(Misbehaved::ServerVersion(b'H').into()));
    }
}
