//! UnregisterBroker (64): a broker leaves for good.

use klamm_wire::ErrorCode;
use klamm_wire::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use klamm_wire::metadata_records::UnregisterBrokerRecord;

use super::{Controller, Outcome};

impl Controller {
    /// UnregisterBroker (64). Its replicas stay assigned to it, as in Kafka: drain it by reassigning them first.
    ///
    /// * `BROKER_ID_NOT_REGISTERED`: there is no such broker.
    pub fn unregister_broker(
        &mut self,
        request: &UnregisterBrokerRequest,
    ) -> Outcome<UnregisterBrokerResponse> {
        let id = request.broker_id.0;
        let response = UnregisterBrokerResponse::default().with_error_message(None);
        let Some(broker_epoch) = self.image.broker(id).map(|broker| broker.epoch) else {
            let refused = response
                .with_error_code(ErrorCode::BROKER_ID_NOT_REGISTERED.0)
                .with_error_message(Some(format!("no broker {id} is registered").into()));
            return self.outcome(refused);
        };
        self.emit(UnregisterBrokerRecord { broker_id: id, broker_epoch });
        self.leave(&[id], None);
        self.sessions.remove(&id);
        self.outcome(response)
    }
}
