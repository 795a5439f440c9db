//! CreatePartitions (37): versions 0 to 3; brokers pass it on to the controller.

use std::sync::Arc;
use std::time::Duration;

use klamm_wire::codec::{decode_request, decode_response};
use klamm_wire::messages::CreatePartitionsRequest;
use klamm_wire::seam::Frame;

use super::{Handled, decide, forward as pass_on};
use crate::broker::Broker;
use crate::controller::ControllerNode;

/// Longest wait for new partitions to show up in this broker's own metadata, as with new topics.
const SHOW_UP: Duration = Duration::from_millis(500);

/// At the controller.
pub(super) fn handle(controller: &Arc<ControllerNode>, frame: Frame) -> Handled {
    decide::<CreatePartitionsRequest>(controller, frame, |machine, _, request| {
        machine.create_partitions(request)
    })
}

/// At a broker.
pub(super) fn forward(broker: &Arc<Broker>, frame: Frame) -> Handled {
    let request = decode_request::<CreatePartitionsRequest>(frame.clone())?;
    pass_on(broker, frame, move |broker, answer| {
        let results = decode_response::<CreatePartitionsRequest>(answer).unwrap_or_default().results;
        let grown = |name: &str| results.iter().any(|one| &**one.name == name && one.error_code == 0);
        let wanted = request.topics.iter().filter(|topic| !request.validate_only && grown(&topic.name));
        let wanted: Vec<_> = wanted.map(|topic| (topic.name.clone(), topic.count)).collect();
        Box::pin(async move {
            let shown = broker.until_told(|image| {
                let mut topics = wanted.iter().map(|(name, count)| (image.topic(name), *count));
                let all = topics.all(|(topic, count)| {
                    let have = topic.map_or(0, |topic| topic.partitions.len());
                    i32::try_from(have).is_ok_and(|have| have >= count)
                });
                all.then_some(())
            });
            tokio::select! {
                biased;
                () = shown => {}
                () = broker.rt.sleep(SHOW_UP) => {}
            }
        })
    })
}
