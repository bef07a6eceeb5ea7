//! Whether somebody keeps the clock right.

/// True when the kernel is told that the clock follows a time source, as NTP daemons do; `None`
/// when it does not say, for example in a container that may not ask.
pub fn clock_is_synchronised() -> Option<bool> {
    // SAFETY: a timex is integers only, for which all bits zero is a value. `modes` zero means
    // that nothing is to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into the value that lives here until the call returns.
    let result = unsafe { libc::adjtimex(&mut state) };
    (result >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_changes_nothing() {
        assert_eq!(clock_is_synchronised(), clock_is_synchronised());
    }
}
