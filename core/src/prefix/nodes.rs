//! The nodes of the radix tree: edges of tokens, joined at branches. Knows nothing of how long a holder's sequence is.
//!
//! Except for the root, a node has either no child or at least two between the calls of the index: sequences end inside
//! edges, so only a difference between two sequences makes a branch.

use std::ops::{Index, IndexMut};

use super::HolderId;
use crate::text::TokenId;

/// A node's place among the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

/// The node of the empty sequence; its edge is empty for ever.
pub(super) const ROOT: NodeId = NodeId(0);

/// An edge and what lies at its end.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: NodeId,
    /// Tokens before the edge.
    pub(super) start: usize,
    /// Empty at the root only.
    pub(super) edge: Vec<TokenId>,
    /// By the first token of the child's edge, rising.
    pub(super) children: Vec<(TokenId, NodeId)>,
    /// Holders whose sequences end on this edge, after its first token; at the root the empty ones.
    pub(super) ends: Vec<HolderId>,
}

impl Node {
    fn new(parent: NodeId, start: usize, edge: Vec<TokenId>) -> Self {
        Self { parent, start, edge, children: Vec::new(), ends: Vec::new() }
    }

    /// Tokens from the root to the end of the edge.
    pub(super) fn end(&self) -> usize {
        self.start + self.edge.len()
    }

    pub(super) fn child(&self, first: TokenId) -> Option<NodeId> {
        let place = self.children.binary_search_by_key(&first, |&(token, _)| token).ok()?;
        Some(self.children[place].1)
    }

    /// Names `child` as the one that begins with `first`, in place of another one if there is.
    fn set_child(&mut self, first: TokenId, child: NodeId) {
        match self.children.binary_search_by_key(&first, |&(token, _)| token) {
            Ok(place) => self.children[place].1 = child,
            Err(place) => self.children.insert(place, (first, child)),
        }
    }

    pub(super) fn remove_end(&mut self, holder: HolderId) {
        if let Some(place) = self.ends.iter().position(|&other| other == holder) {
            self.ends.swap_remove(place);
        }
    }

    /// Gives back what a much longer edge had needed, and leaves an edge that grows its reserve.
    fn trim_capacity(&mut self) {
        let fair = self.edge.len().max(32) * 2;
        if self.edge.capacity() > fair {
            self.edge.shrink_to(self.edge.len());
        }
    }
}

/// All nodes. Places of removed ones are used again.
#[derive(Debug)]
pub(super) struct Nodes {
    slots: Vec<Node>,
    free: Vec<NodeId>,
    n_tokens: usize,
}

impl Index<NodeId> for Nodes {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.slots[id.0 as usize]
    }
}

impl IndexMut<NodeId> for Nodes {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.slots[id.0 as usize]
    }
}

impl Nodes {
    /// The root alone.
    pub(super) fn new() -> Self {
        Self { slots: vec![Node::new(ROOT, 0, Vec::new())], free: Vec::new(), n_tokens: 0 }
    }

    /// Tokens on all edges.
    pub(super) fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Bytes asked of the allocator.
    pub(super) fn memory_bytes(&self) -> usize {
        let inside = |node: &Node| {
            node.edge.capacity() * size_of::<TokenId>()
                + node.children.capacity() * size_of::<(TokenId, NodeId)>()
                + node.ends.capacity() * size_of::<HolderId>()
        };
        self.slots.capacity() * size_of::<Node>()
            + self.free.capacity() * size_of::<NodeId>()
            + self.slots.iter().map(inside).sum::<usize>()
    }

    /// The node on whose edge (or at whose end) `query` leaves the tree, and how many of its tokens are there.
    pub(super) fn descend(&self, query: &[TokenId]) -> (NodeId, usize) {
        let (mut node, mut depth) = (ROOT, 0);
        while let Some(child) = query.get(depth).and_then(|&token| self[node].child(token)) {
            node = child;
            depth += common(&self[node].edge, &query[depth..]);
            if depth < self[node].end() {
                break;
            }
        }
        (node, depth)
    }

    /// A new node under `parent`; none of its children begins with the same token.
    pub(super) fn add_leaf(&mut self, parent: NodeId, tokens: &[TokenId]) -> NodeId {
        let leaf = self.place(Node::new(parent, self[parent].end(), tokens.to_vec()));
        self[parent].set_child(tokens[0], leaf);
        self.n_tokens += tokens.len();
        leaf
    }

    /// Lets the edge of a leaf grow.
    pub(super) fn append(&mut self, leaf: NodeId, tokens: &[TokenId]) {
        self[leaf].edge.extend_from_slice(tokens);
        self.n_tokens += tokens.len();
    }

    /// Cuts the edge of a leaf to its first `n` tokens, at least one.
    pub(super) fn cut(&mut self, leaf: NodeId, n: usize) {
        self.n_tokens -= self[leaf].edge.len() - n;
        self[leaf].edge.truncate(n);
        self[leaf].trim_capacity();
    }

    /// Removes a leaf.
    pub(super) fn remove_leaf(&mut self, leaf: NodeId) {
        let Node { parent, edge, .. } = self.take(leaf);
        self.n_tokens -= edge.len();
        self[parent].children.retain(|&(_, child)| child != leaf);
    }

    /// Puts a new node between `node` and its parent, which takes the first `n` tokens of the edge; 0 < n < its length.
    /// The caller shares out the ends.
    pub(super) fn split(&mut self, node: NodeId, n: usize) -> NodeId {
        let lower = &mut self[node];
        let (parent, start) = (lower.parent, lower.start);
        let edge: Vec<TokenId> = lower.edge.drain(..n).collect();
        lower.start += n;
        lower.trim_capacity();
        let (first_upper, first_lower) = (edge[0], lower.edge[0]);
        let upper = self.place(Node::new(parent, start, edge));
        self[node].parent = upper;
        self[upper].set_child(first_lower, node);
        self[parent].set_child(first_upper, upper);
        upper
    }

    /// Joins a node with its only child, which keeps its name and gets the ends of both.
    pub(super) fn join(&mut self, node: NodeId) -> NodeId {
        let Node { parent, start, mut edge, children, ends } = self.take(node);
        let (_, child) = children[0];
        self[parent].set_child(edge[0], child);
        let lower = &mut self[child];
        edge.append(&mut lower.edge);
        lower.edge = edge;
        lower.trim_capacity();
        (lower.parent, lower.start) = (parent, start);
        lower.ends.extend(ends);
        child
    }

    fn place(&mut self, node: Node) -> NodeId {
        if let Some(id) = self.free.pop() {
            self[id] = node;
            return id;
        }
        let id = NodeId(u32::try_from(self.slots.len()).expect("fewer nodes than 2^32"));
        self.slots.push(node);
        id
    }

    fn take(&mut self, id: NodeId) -> Node {
        self.free.push(id);
        std::mem::replace(&mut self[id], Node::new(ROOT, 0, Vec::new()))
    }
}

/// How many tokens two sequences begin with in common.
pub(super) fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
