//! A request that waits until there is enough to answer.

use std::sync::Arc;

use super::read::Harvest;
use super::{Plan, Scope};
use crate::broker::{Broker, Partition, Signal, Until};
use crate::node::Reply;
use crate::rt::Tick;

/// Waits for a plan; leaves no signal behind when the client goes away.
pub(super) struct Watch {
    plan: Plan,
    signal: Signal,
    replicas: Vec<Arc<Partition>>,
}

impl Watch {
    pub(super) fn new(plan: Plan) -> Self {
        Self { plan, signal: Signal::default(), replicas: Vec::new() }
    }

    /// The answer, when there is enough or it is time.
    pub(super) async fn until_enough(
        &mut self,
        broker: &Broker,
        mut harvest: Harvest,
        deadline: Tick,
    ) -> Reply {
        loop {
            self.until_news(broker, &harvest, deadline).await;
            harvest = self.plan.harvest(broker);
            let late = broker.rt.now() >= deadline;
            if late || self.plan.enough(broker, &harvest) || self.plan.is_over(broker) {
                return self.plan.finish(broker, harvest);
            }
            self.plan.settle(broker, &harvest);
        }
    }

    async fn until_news(&mut self, broker: &Broker, harvest: &Harvest, deadline: Tick) {
        let sleep = broker.rt.sleep_until(deadline);
        match &self.plan.scope {
            Scope::Session { id, epoch, bell } => {
                let rung = bell.rung();
                tokio::pin!(rung);
                rung.as_mut().enable();
                if !broker.sessions.is_current(*id, *epoch) {
                    return;
                }
                tokio::select! {
                    biased;
                    () = rung => {}
                    () = sleep => {}
                }
            }
            Scope::Whole { request, .. } => {
                self.replicas.clear();
                for (look, (_, wanted, _)) in harvest.looks.iter().zip(&request.wanted) {
                    let Some((replica, seen)) = &look.replica else { continue };
                    let next = wanted.fetch_offset.max(*seen).saturating_add(1);
                    let until = match self.plan.follower {
                        Some(_) => Until::Appended(next),
                        None => Until::Committed(next),
                    };
                    replica.wait(until, &self.signal);
                    self.replicas.push(replica.clone());
                }
                tokio::select! {
                    biased;
                    () = self.signal.notified() => {}
                    () = sleep => {}
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.replicas.iter().for_each(|replica| replica.forget(&self.signal));
    }
}
