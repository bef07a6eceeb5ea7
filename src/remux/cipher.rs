//! Segments under AES-128 in CBC mode, as HLS has it (RFC 8216 4.3.2.4): each segment whole, with
//! PKCS7 padding.

use aes::Aes128;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit};
use uring::{Arena, ArenaFull, BLOCK_SIZES};

use crate::hub::segments::{Piece, bytes_of};
use crate::limits::BLOCK_SLACK;

/// Which keys a stream's segments have.
#[derive(Clone, Debug)]
pub struct KeyOptions {
    /// Segments that have one key.
    pub segments: u64,
    /// Name of key files.
    pub name: crate::proto::hls::Template,
    /// What goes before that name in playlists; empty: keys are addressed as segments are.
    pub url: String,
}

/// 16 bytes that nobody guesses; `None` if the system has none.
pub fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    filled.is_ok_and(|len| len == bytes.len()).then_some(bytes)
}

/// Encrypts ranges into blocks of their own.
///
/// # Errors
/// The media memory is used up.
pub fn encrypt(
    key: &[u8; 16],
    iv: &[u8; 16],
    pieces: &[Piece],
    arena: &Arena,
) -> Result<Vec<Piece>, ArenaFull> {
    let mut plain = Vec::with_capacity(bytes_of(pieces) as usize + 16);
    for piece in pieces {
        plain.extend_from_slice(piece.block.bytes(piece.start, piece.end));
    }
    let cipher = cbc::Encryptor::<Aes128>::new(key.into(), iv.into());
    let sealed = cipher.encrypt_padded_vec::<Pkcs7>(&plain);
    let mut out = Vec::new();
    let largest = BLOCK_SIZES[BLOCK_SIZES.len() - 1];
    let mut rest = &sealed[..];
    while !rest.is_empty() {
        let mut writer = arena.writer((rest.len() + BLOCK_SLACK).min(largest))?;
        let (now, later) = rest.split_at(rest.len().min(writer.room()));
        writer.push(now);
        writer.publish();
        out.push(Piece { block: writer.block().clone(), start: 0, end: now.len() as u32 });
        rest = later;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cbc::cipher::BlockModeDecrypt;
    use uring::ArenaOptions;

    #[test]
    fn what_is_sealed_can_be_opened() {
        let arena = Arena::new(ArenaOptions { limit: 16 << 20, huge_pages: false }).unwrap();
        let (key, iv) = (random().unwrap(), random().unwrap());
        assert_ne!(key, iv);
        for len in [1, 15, 16, 188, 1_048_000, 2_500_000] {
            let bytes: Vec<u8> = (0..len).map(|n: usize| (n * 7) as u8).collect();
            let mut pieces = Vec::new();
            for part in bytes.chunks(700_000) {
                let mut writer = arena.writer(part.len() + 64).unwrap();
                writer.push(part);
                writer.publish();
                let block = writer.block().clone();
                pieces.push(Piece { block, start: 0, end: part.len() as u32 });
            }
            let sealed = encrypt(&key, &iv, &pieces, &arena).unwrap();
            let sealed: Vec<u8> =
                sealed.iter().flat_map(|p| p.block.bytes(p.start, p.end).to_vec()).collect();
            assert_eq!(sealed.len(), (len / 16 + 1) * 16);
            let cipher = cbc::Decryptor::<Aes128>::new(&key.into(), &iv.into());
            assert!(cipher.decrypt_padded_vec::<Pkcs7>(&sealed).unwrap() == bytes, "{len}");
        }
    }
}
