//! Names with their values, as heads and queries have them: a request is kept for as long as its
//! answer takes, and thousands wait, so all of them are one text.

/// Names with values, in order; a name may come again.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs {
    text: String,
    /// Where each name and its value end in the text.
    ends: Vec<(u32, u32)>,
}

impl Pairs {
    /// None yet, with room for so many.
    pub fn with_capacity(pairs: usize, bytes: usize) -> Pairs {
        Pairs { text: String::with_capacity(bytes), ends: Vec::with_capacity(pairs) }
    }

    /// Adds one. The text is never longer than the head it comes from.
    pub fn push(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let name_end = self.text.len() as u32;
        self.text.push_str(value);
        self.ends.push((name_end, self.text.len() as u32));
    }

    /// Adds one with its name in lower case.
    pub fn push_lower(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.push(name, value);
        self.text[start..start + name.len()].make_ascii_lowercase();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |(name, value)| {
            let pair =
                (&self.text[start..*name as usize], &self.text[*name as usize..*value as usize]);
            start = *value as usize;
            pair
        })
    }

    /// The value of the first with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all with this name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let mut start = 0;
        self.ends.iter().filter_map(move |(name_end, end)| {
            let known = std::mem::replace(&mut start, *end as usize)..*name_end as usize;
            // Asked many times for each request: most differ in length already.
            let same = known.len() == name.len() && self.text.as_bytes()[known] == *name.as_bytes();
            same.then(|| &self.text[*name_end as usize..*end as usize])
        })
    }
}

impl std::fmt::Debug for Pairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_come_back_in_order() {
        let mut pairs = Pairs::with_capacity(2, 10);
        assert!(pairs.is_empty() && pairs.get("").is_none());
        pairs.push("a", "1");
        pairs.push_lower("X-Üb", "Ä");
        pairs.push("", "");
        pairs.push("a", "2");
        let all: Vec<_> = pairs.iter().collect();
        assert_eq!(all, [("a", "1"), ("x-Üb", "Ä"), ("", ""), ("a", "2")]);
        assert_eq!(
            (pairs.get("a"), pairs.get("x-Üb"), pairs.get("b")),
            (Some("1"), Some("Ä"), None)
        );
        assert_eq!((pairs.len(), pairs.get("")), (4, Some("")));
        assert_eq!(pairs.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(format!("{:?}", Pairs::default()), "{}");
    }
}
