//! [`PrefixIndex`]: which holders have how much of a sequence of tokens.

use std::collections::BTreeMap;

use super::nodes::{Node, NodeId, Nodes, ROOT, common};
use crate::text::TokenId;

/// Names one holder of a sequence. What it stands for is the caller's: a running or kept sequence of an engine, a
/// snapshot in host memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId(pub u32);

/// A holder whose sequence begins as the query does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The holder.
    pub holder: HolderId,
    /// Tokens that its sequence and the query begin with in common; at least 1.
    pub n_tokens: usize,
    /// Tokens of its whole sequence, at least `n_tokens`.
    pub n_holder_tokens: usize,
}

impl Match {
    /// The query has all that the holder has: it can be used up without losing anything.
    pub fn is_whole(&self) -> bool {
        self.n_tokens == self.n_holder_tokens
    }
}

/// Which holders are looked at when one has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Those that are not [covered](PrefixIndex::covered): the leaves. Where cells are shared, dropping one of the others
    /// frees none.
    Leaves,
    /// Those that are covered: dropping one loses no prefix, and frees its id and whatever it does not share.
    Covered,
    /// All.
    All,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    /// The node whose edge the sequence ends on.
    node: NodeId,
    n_tokens: usize,
    /// The clock when it was last used.
    used: u64,
}

/// A radix tree over token ids with the holders of each prefix. No clock but a counter of its own uses, no locks.
///
/// A common prefix is stored once. Holders end inside edges, so a running sequence grows by a push, also along another
/// one's tokens, and the tree has fewer than two nodes a holder.
#[derive(Debug)]
pub struct PrefixIndex {
    nodes: Nodes,
    holders: BTreeMap<HolderId, Holder>,
    clock: u64,
}

impl Default for PrefixIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl PrefixIndex {
    /// An index without holders.
    pub fn new() -> Self {
        Self { nodes: Nodes::new(), holders: BTreeMap::new(), clock: 0 }
    }

    /// Says that `holder` has exactly `tokens` (nothing of what it had before), and that it was used just now.
    pub fn insert(&mut self, holder: HolderId, tokens: &[TokenId]) {
        self.remove(holder);
        self.extend(holder, tokens);
    }

    /// Says that `holder` has got `tokens` after what it had, and that it was used just now. One that is not known yet
    /// had nothing. Amortised O(log holders + tokens); allocates at branches and when an edge doubles.
    pub fn extend(&mut self, holder: HolderId, tokens: &[TokenId]) {
        self.clock += 1;
        let now = self.clock;
        if !self.holders.contains_key(&holder) {
            self.nodes[ROOT].ends.push(holder);
        }
        let entry = self.holders.entry(holder).or_insert(Holder { node: ROOT, n_tokens: 0, used: now });
        entry.used = now;
        let (from, n_before) = (entry.node, entry.n_tokens);
        let to = self.grow(from, n_before, tokens);
        self.settle_at(holder, to, n_before + tokens.len());
    }

    /// Says that `holder` has only the first `n_tokens` left. Nothing changes where it has no more than those.
    pub fn truncate(&mut self, holder: HolderId, n_tokens: usize) {
        let Some(&Holder { node: from, n_tokens: n_before, .. }) = self.holders.get(&holder) else { return };
        if n_tokens >= n_before {
            return;
        }
        let mut to = from;
        while to != ROOT && self.nodes[to].start >= n_tokens {
            to = self.nodes[to].parent;
        }
        self.settle_at(holder, to, n_tokens);
        self.tidy(from);
    }

    /// Forgets the holder. Unknown ones are fine.
    pub fn remove(&mut self, holder: HolderId) {
        let Some(Holder { node, .. }) = self.holders.remove(&holder) else { return };
        if self.holders.is_empty() {
            self.nodes = Nodes::new();
            return;
        }
        self.nodes[node].remove_end(holder);
        self.tidy(node);
    }

    /// Says that the holder was used just now.
    pub fn touch(&mut self, holder: HolderId) {
        if let Some(entry) = self.holders.get_mut(&holder) {
            self.clock += 1;
            entry.used = self.clock;
        }
    }

    /// The accepted holder that has most of `query`'s beginning, if one has any of it. Of several with as much of it,
    /// the one whose own sequence goes on the least beyond that, then the one with the lowest id.
    ///
    /// O(tokens + holders). `filter` is asked at most once for each holder.
    pub fn longest(&self, query: &[TokenId], filter: impl Fn(HolderId) -> bool) -> Option<Match> {
        let (mut node, mut depth) = self.nodes.descend(query);
        let mut below = None;
        while depth > 0 {
            let found = self.shortest_from(node, depth, below, &filter);
            let found = found.or_else(|| self.longest_before(node, depth, &filter));
            if let Some((n_holder_tokens, holder)) = found {
                return Some(Match { holder, n_tokens: depth.min(n_holder_tokens), n_holder_tokens });
            }
            below = Some(node);
            depth = self.nodes[node].start;
            node = self.nodes[node].parent;
        }
        None
    }

    /// The accepted holder with the longest sequence that `query` begins with as a whole; for caches that cannot be cut.
    pub fn longest_whole(&self, query: &[TokenId], filter: impl Fn(HolderId) -> bool) -> Option<Match> {
        let (mut node, mut depth) = self.nodes.descend(query);
        while depth > 0 {
            if let Some((n_tokens, holder)) = self.longest_before(node, depth + 1, &filter) {
                return Some(Match { holder, n_tokens, n_holder_tokens: n_tokens });
            }
            depth = self.nodes[node].start;
            node = self.nodes[node].parent;
        }
        None
    }

    /// The holders whose whole sequences `query` begins with, empty ones included, in no order.
    pub fn prefixes_of(&self, query: &[TokenId]) -> Vec<HolderId> {
        let (mut node, depth) = self.nodes.descend(query);
        let mut found = Vec::new();
        loop {
            let ends = self.nodes[node].ends.iter().copied();
            found.extend(ends.filter(|&holder| self.n_tokens_of(holder) <= depth));
            if node == ROOT {
                return found;
            }
            node = self.nodes[node].parent;
        }
    }

    /// Whether the holder's sequence is a prefix of another one's, so that nothing is lost without it. Of holders with
    /// the same sequence all but the last used one are covered.
    pub fn covered(&self, holder: HolderId) -> bool {
        let Some(this) = self.holders.get(&holder) else { return false };
        let node = &self.nodes[this.node];
        let covers = |other: &HolderId| {
            let other = self.holders[other];
            (other.n_tokens, other.used) > (this.n_tokens, this.used)
        };
        !node.children.is_empty() || node.ends.iter().any(covers)
    }

    /// Tokens at the end of the holder's sequence that no other holder has at this place: what dropping it frees where
    /// cells are shared. 0 for an unknown one.
    pub fn n_exclusive(&self, holder: HolderId) -> usize {
        let Some(this) = self.holders.get(&holder) else { return 0 };
        let node = &self.nodes[this.node];
        if !node.children.is_empty() {
            return 0;
        }
        let others = node.ends.iter().filter(|&&other| other != holder);
        let shared = others.map(|&other| self.n_tokens_of(other)).max().unwrap_or(node.start);
        this.n_tokens.saturating_sub(shared)
    }

    /// The accepted holder whose last use is the longest ago.
    ///
    /// Uses are `insert`, `extend` and `touch`. A prefix needs no recency of its own: it is there as long as anybody has
    /// it. With [`Among::Leaves`] a prefix that only covered holders are used for outlives the stale end of whatever
    /// covers them: that goes first, and they are leaves then.
    pub fn least_recent(&self, among: Among, filter: impl Fn(HolderId) -> bool) -> Option<HolderId> {
        let eligible = |holder| match among {
            Among::Leaves => !self.covered(holder),
            Among::Covered => self.covered(holder),
            Among::All => true,
        };
        let accepted = self.holders.iter().filter(|&(&holder, _)| filter(holder) && eligible(holder));
        accepted.min_by_key(|(_, entry)| entry.used).map(|(&holder, _)| holder)
    }

    /// Whether the holder is known.
    pub fn contains(&self, holder: HolderId) -> bool {
        self.holders.contains_key(&holder)
    }

    /// Tokens of the holder's sequence; 0 for an unknown one.
    pub fn n_tokens_of(&self, holder: HolderId) -> usize {
        self.holders.get(&holder).map_or(0, |entry| entry.n_tokens)
    }

    /// The holder's sequence; empty for an unknown one.
    pub fn tokens(&self, holder: HolderId) -> Vec<TokenId> {
        let Some(&Holder { mut node, n_tokens, .. }) = self.holders.get(&holder) else { return Vec::new() };
        let mut tokens = vec![0; n_tokens];
        let mut end = n_tokens;
        while node != ROOT {
            let Node { parent, start, edge, .. } = &self.nodes[node];
            tokens[*start..end].copy_from_slice(&edge[..end - start]);
            (node, end) = (*parent, *start);
        }
        tokens
    }

    /// All holders, by id.
    pub fn holders(&self) -> impl Iterator<Item = HolderId> {
        self.holders.keys().copied()
    }

    /// All holders, the last used one last.
    pub fn by_last_use(&self) -> Vec<HolderId> {
        let mut holders: Vec<HolderId> = self.holders.keys().copied().collect();
        holders.sort_by_key(|holder| self.holders[holder].used);
        holders
    }

    /// How many holders there are.
    pub fn n_holders(&self) -> usize {
        self.holders.len()
    }

    /// Tokens of all sequences, common prefixes counted once: the cells they take where cells are shared.
    pub fn n_distinct_tokens(&self) -> usize {
        self.nodes.n_tokens()
    }

    /// Bytes that the index takes, about.
    pub fn memory_bytes(&self) -> usize {
        self.nodes.memory_bytes() + self.holders.len() * size_of::<(HolderId, Holder)>()
    }

    /// Makes room for `tokens` after the first `depth` tokens of `node`'s path, and says on which node's edge they end.
    fn grow(&mut self, mut node: NodeId, mut depth: usize, tokens: &[TokenId]) -> NodeId {
        let mut rest = tokens;
        while let Some(&first) = rest.first() {
            let (here, offset) = (&self.nodes[node], depth - self.nodes[node].start);
            if offset < here.edge.len() {
                let n = common(&here.edge[offset..], rest);
                depth += n;
                rest = &rest[n..];
                if !rest.is_empty() && depth < here.end() {
                    node = self.split(node, offset + n);
                }
            } else if let Some(child) = here.child(first) {
                node = child;
            } else if here.children.is_empty() && node != ROOT {
                self.nodes.append(node, rest);
                break;
            } else {
                return self.nodes.add_leaf(node, rest);
            }
        }
        node
    }

    /// Splits an edge after its first `n` tokens for a branch; the upper node comes back.
    fn split(&mut self, node: NodeId, n: usize) -> NodeId {
        let upper = self.nodes.split(node, n);
        let end = self.nodes[upper].end();
        let ends = std::mem::take(&mut self.nodes[node].ends);
        for holder in ends {
            let entry = self.holders.get_mut(&holder).expect("whoever ends on an edge is a holder");
            entry.node = if entry.n_tokens <= end { upper } else { node };
            self.nodes[entry.node].ends.push(holder);
        }
        upper
    }

    /// Writes down where a holder ends now.
    fn settle_at(&mut self, holder: HolderId, node: NodeId, n_tokens: usize) {
        let entry = self.holders.get_mut(&holder).expect("the caller has looked it up");
        entry.n_tokens = n_tokens;
        // Read here and not before: a split may have moved it.
        let from = std::mem::replace(&mut entry.node, node);
        if from != node {
            self.nodes[from].remove_end(holder);
            self.nodes[node].ends.push(holder);
        }
    }

    /// Takes away what nobody has any more at the end of `node`'s edge, after a holder has left it.
    fn tidy(&mut self, node: NodeId) {
        if node == ROOT || !self.nodes[node].children.is_empty() {
            return;
        }
        let here = &self.nodes[node];
        if let Some(end) = here.ends.iter().map(|&holder| self.n_tokens_of(holder)).max() {
            let n = end - here.start;
            self.nodes.cut(node, n);
            return;
        }
        let parent = here.parent;
        self.nodes.remove_leaf(node);
        if parent != ROOT && self.nodes[parent].children.len() == 1 {
            let child = self.nodes.join(parent);
            for holder in &self.nodes[child].ends {
                self.holders.get_mut(holder).expect("whoever ends on an edge is a holder").node = child;
            }
        }
    }

    /// The accepted holder with the shortest sequence of at least `depth` tokens that ends on `node`'s edge or beneath,
    /// the branch `except` left out, as (tokens, holder).
    fn shortest_from(
        &self,
        node: NodeId,
        depth: usize,
        except: Option<NodeId>,
        filter: &impl Fn(HolderId) -> bool,
    ) -> Option<(usize, HolderId)> {
        let mut best: Option<(usize, HolderId)> = None;
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            let Node { start, children, ends, .. } = &self.nodes[node];
            if best.is_some_and(|(n_tokens, _)| *start >= n_tokens) {
                continue;
            }
            let ends = ends.iter().map(|&holder| (self.n_tokens_of(holder), holder));
            let found = ends.filter(|&(n_tokens, holder)| n_tokens >= depth && filter(holder)).min();
            best = best.into_iter().chain(found).min();
            let beneath = children.iter().map(|&(_, child)| child);
            open.extend(beneath.filter(|&child| Some(child) != except));
        }
        best
    }

    /// The accepted holder with the longest sequence of less than `depth` tokens among those that end on `node`'s edge,
    /// as (tokens, holder).
    fn longest_before(
        &self,
        node: NodeId,
        depth: usize,
        filter: &impl Fn(HolderId) -> bool,
    ) -> Option<(usize, HolderId)> {
        let ends = self.nodes[node].ends.iter().map(|&holder| (self.n_tokens_of(holder), holder));
        let found = ends.filter(|&(n_tokens, holder)| n_tokens < depth && filter(holder));
        found.max_by_key(|&(n_tokens, holder)| (n_tokens, std::cmp::Reverse(holder)))
    }

    /// Panics unless the tree is in its one form: for tests.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut open = vec![ROOT];
        let (mut n_ends, mut n_tokens) = (0, 0);
        while let Some(id) = open.pop() {
            let node = &self.nodes[id];
            n_ends += node.ends.len();
            n_tokens += node.edge.len();
            for holder in &node.ends {
                let entry = self.holders[holder];
                assert_eq!(entry.node, id);
                assert!(entry.n_tokens <= node.end() && (id == ROOT || entry.n_tokens > node.start));
            }
            assert!(node.children.is_sorted_by_key(|&(token, _)| token));
            for &(token, child) in &node.children {
                assert_eq!(self.nodes[child].edge[0], token);
                assert_eq!((self.nodes[child].parent, self.nodes[child].start), (id, node.end()));
                open.push(child);
            }
            if id != ROOT {
                assert_ne!(node.children.len(), 1, "a branch of one");
                let reach = node.ends.iter().map(|&holder| self.n_tokens_of(holder)).max();
                assert!(!node.children.is_empty() || reach == Some(node.end()), "an end that nobody has");
            }
        }
        assert_eq!((n_ends, n_tokens), (self.holders.len(), self.nodes.n_tokens()));
    }
}
