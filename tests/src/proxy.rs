//! A network that can be cut, between processes that know nothing of it.
//!
//! In: connections to the proxy of a listener. Out: the same bytes at the listener, unless the way between the two nodes
//! is cut: then they are kept, in the direction that is cut, until it is whole again. Connections stay open, as they do
//! when a switch dies.
//!
//! Who has connected is told by the client id of its first request: nodes of broker-lite call themselves
//! `node N: purpose` there. Everybody else is a client, whose way is never cut.

use std::collections::BTreeSet;
use std::io::Error;
use std::sync::Arc;

use bytes::BytesMut;
use klamm_wire::codec::decode_request_header;
use klamm_wire::framing::FrameSplitter;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const CHUNK: usize = 64 << 10;

/// Which ways are cut, by the nodes at their ends.
#[derive(Debug, Default)]
pub struct Cuts {
    /// From, to.
    cut: Mutex<BTreeSet<(i32, i32)>>,
    changed: Notify,
}

impl Cuts {
    /// Cuts one direction.
    pub fn cut(&self, from: i32, to: i32) {
        self.cut.lock().insert((from, to));
    }

    /// Makes everything whole.
    pub fn mend(&self) {
        self.cut.lock().clear();
        self.changed.notify_waiters();
    }

    async fn until_whole(&self, way: Option<(i32, i32)>) {
        let Some(way) = way else { return };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.cut.lock().contains(&way) {
                return;
            }
            changed.await;
        }
    }
}

/// Passes on what comes in, on a port that the system chooses, which it returns. Ends with the runtime.
///
/// # Errors
///
/// There is no port.
pub async fn stand_before(node: i32, port: u16, cuts: Arc<Cuts>) -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let own = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, node, port, cuts.clone()));
        }
    });
    Ok(own)
}

async fn carry(mut client: TcpStream, node: i32, port: u16, cuts: Arc<Cuts>) -> Result<(), Error> {
    client.set_nodelay(true)?;
    let mut first = BytesMut::new();
    let from = loop {
        let mut splitter = FrameSplitter::new(1 << 20);
        splitter.push(&first);
        if let Some(mut request) = splitter.next_frame().map_err(Error::other)? {
            let head = decode_request_header(&mut request).map_err(Error::other)?;
            break node_of(head.client_id.as_deref().unwrap_or_default());
        }
        if client.read_buf(&mut first).await? == 0 {
            return Ok(());
        }
    };
    let (there, back) = (from.map(|from| (from, node)), from.map(|from| (node, from)));
    cuts.until_whole(there).await;
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server.set_nodelay(true)?;
    server.write_all(&first).await?;
    let (client_in, client_out) = client.split();
    let (server_in, server_out) = server.split();
    tokio::select! {
        done = pump(client_in, server_out, there, &cuts) => done,
        done = pump(server_in, client_out, back, &cuts) => done,
    }
}

/// Until one end is gone; the other end learns it at once, unless its way is cut.
async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    way: Option<(i32, i32)>,
    cuts: &Cuts,
) -> Result<(), Error> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).await;
        cuts.until_whole(way).await;
        match count? {
            0 => return to.shutdown().await,
            count => to.write_all(&chunk[..count]).await?,
        }
    }
}

/// `node 2: fetcher` is node 2's.
fn node_of(client_id: &str) -> Option<i32> {
    client_id.strip_prefix("node ")?.split_once(':')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_from_clients_by_their_names() {
        assert_eq!(node_of("node 12: fetcher of broker 12"), Some(12));
        for client in ["", "node", "node x: y", "producer-1", "node 1"] {
            assert_eq!(node_of(client), None);
        }
    }
}
