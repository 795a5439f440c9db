//! One direction of one conversation, while something is wrong with the network or somebody listens in.
//!
//! In: messages as they are sent. Out: the same messages in the same order, as they arrive.
//!
//! Invariant: a message arrives neither before its own latency is over nor before those sent earlier; messages sent
//! while others are under way do not wait for the others' latency on top of their own.

use std::collections::VecDeque;
use std::sync::Arc;

use super::conditions::Fate;
use super::{Network, Party};
use crate::rt::Tick;

/// What is under way in one direction.
pub(super) struct Lane<T> {
    network: Arc<Network>,
    messages: VecDeque<UnderWay<T>>,
}

struct UnderWay<T> {
    due: Tick,
    lost: bool,
    message: T,
}

impl<T> Lane<T> {
    pub(super) fn new(network: Arc<Network>) -> Self {
        Self { network, messages: VecDeque::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Sends one message on its way.
    pub(super) fn send(&mut self, from: &Party, to: &Party, message: T) {
        let Fate { under_way, lost } = self.network.fate(from, to);
        let earliest = self.messages.back().map_or(Tick::ZERO, |last| last.due);
        let due = earliest.max(self.network.rt.now() + under_way);
        self.messages.push_back(UnderWay { due, lost, message });
    }

    /// Waits for the first message to arrive; `None` if it was lost, or nothing is under way.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message that has not arrived stays under way.
    pub(super) async fn arrival(&mut self, from: &Party, to: &Party) -> Option<T> {
        let due = self.messages.front()?.due;
        if due > self.network.rt.now() {
            self.network.rt.sleep_until(due).await;
        }
        self.network.until_passable(from, to).await;
        let UnderWay { lost, message, .. } = self.messages.pop_front()?;
        (!lost).then_some(message)
    }
}
