//! Conversations over TCP.

/// Opens conversations over TCP.
#[derive(Debug, Clone, Default)]
pub struct TcpConnector {}
