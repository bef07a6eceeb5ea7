//! What a completion belongs to: operation, slot and generation packed into `user_data`.
//!
//! ```text
//! | 63 .. 56 op | 55 .. 32 slot | 31 .. 0 generation |
//! ```
//! The slot is that of a connection, a listener, a hold, an opening or a wake target, by
//! operation. A late completion of a slot that has been reused is recognized by its generation.

/// Most slots of one table: what 24 bits hold.
pub(crate) const SLOTS_MAX: usize = 1 << 24;

/// The operations a driver issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    /// Another ring woke this one (posted by the other, nothing is in flight here).
    Wake = 1,
    /// The read on our eventfd: a thread without a ring woke us.
    WakeRead,
    /// A wake of another ring failed (it posts no completion when it works).
    WakeFailed,
    /// A cancel; its own outcome says nothing the cancelled operation does not say itself.
    Cancel,
    Accept,
    Connect,
    Receive,
    Discard,
    Send,
    SendZeroCopy,
    /// Splice from a file into a pipe.
    FileRead,
    /// Splice from a pipe into the socket.
    FileWrite,
    /// Waiting for a full socket before the next splice.
    FilePoll,
    /// Opening a file.
    Open,
    /// Asking what was opened.
    Stat,
}

impl Op {
    const ALL: [Op; 15] = [
        Op::Wake,
        Op::WakeRead,
        Op::WakeFailed,
        Op::Cancel,
        Op::Accept,
        Op::Connect,
        Op::Receive,
        Op::Discard,
        Op::Send,
        Op::SendZeroCopy,
        Op::FileRead,
        Op::FileWrite,
        Op::FilePoll,
        Op::Open,
        Op::Stat,
    ];
}

/// The unpacked form of `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) op: Op,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    pub(crate) fn new(op: Op, slot: u32, generation: u32) -> Token {
        debug_assert!((slot as usize) < SLOTS_MAX);
        Token { op, slot, generation }
    }

    pub(crate) fn pack(self) -> u64 {
        (self.op as u64) << 56 | u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// None when the number is not one of ours.
    pub(crate) fn unpack(user_data: u64) -> Option<Token> {
        let op = usize::try_from(user_data >> 56).ok()?.checked_sub(1)?;
        let op = *Op::ALL.get(op)?;
        let slot = (user_data >> 32) as u32 & (SLOTS_MAX as u32 - 1);
        Some(Token { op, slot, generation: user_data as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_op_survives_packing() {
        for op in Op::ALL {
            for (slot, generation) in [(0, 0), (SLOTS_MAX as u32 - 1, u32::MAX), (77, 1 << 31)] {
                let token = Token::new(op, slot, generation);
                assert_eq!(Token::unpack(token.pack()), Some(token));
            }
        }
    }

    #[test]
    fn foreign_numbers_are_refused() {
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(u64::MAX), None);
        assert_eq!(Token::unpack((Op::ALL.len() as u64 + 1) << 56), None);
    }
}
