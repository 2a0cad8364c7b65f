//! Who a fake device is, and how it wants to be served.

use serde_json::{Value, json};

use super::device::Device;
use super::tls::TlsClient;
use super::wire::Encoding;

/// Who logs in, and how.
#[derive(Debug, Clone)]
pub struct Login {
    pub shop: String,
    pub device: String,
    pub role: &'static str,
    ack: Option<&'static str>,
    meta: Option<Value>,
    token: Option<String>,
    encoding: Encoding,
}

impl Login {
    /// A device with the role `main`, which speaks JSON and acknowledges by the op.
    pub fn main(shop: &str, device: &str) -> Login {
        Login {
            shop: shop.into(),
            device: device.into(),
            role: "main",
            ack: None,
            meta: None,
            token: None,
            encoding: Encoding::Json,
        }
    }

    /// The same with the role `sub`.
    pub fn sub(shop: &str, device: &str) -> Login {
        Login { role: "sub", ..Login::main(shop, device) }
    }

    /// Takes the Pong as the proof of receipt.
    pub fn ack_by_pong(self) -> Login {
        Login { ack: Some("pong"), ..self }
    }

    /// Gives the registry something to keep.
    pub fn meta(self, meta: Value) -> Login {
        Login { meta: Some(meta), ..self }
    }

    /// Shows a token.
    pub fn token(self, token: &str) -> Login {
        Login { token: Some(token.into()), ..self }
    }

    /// Chooses the encoding.
    pub fn encoding(self, encoding: Encoding) -> Login {
        Login { encoding, ..self }
    }

    /// The login as an op.
    pub fn op(&self) -> Value {
        let mut op = json!({"op": "login", "shop": self.shop, "device": self.device, "role": self.role});
        if let Some(ack) = self.ack {
            op["ack"] = ack.into();
        }
        if let Some(meta) = &self.meta {
            op["meta"] = meta.clone();
        }
        if let Some(token) = &self.token {
            op["token"] = token.clone().into();
        }
        op
    }

    /// Connects and logs in.
    ///
    /// # Panics
    /// Where the relay does not let it in.
    pub async fn on(&self, url: &str) -> Device {
        self.try_on(url).await.unwrap_or_else(|cause| panic!("{} of {} at {url}: {cause}", self.device, self.shop))
    }

    /// Connects by TLS and logs in.
    ///
    /// # Panics
    /// Where the relay does not let it in.
    pub async fn by(&self, tls: &TlsClient) -> Device {
        self.try_by(tls).await.unwrap_or_else(|cause| panic!("{} of {} by TLS: {cause}", self.device, self.shop))
    }

    /// Connects by TLS and logs in, once.
    ///
    /// # Errors
    /// What happened instead of a welcome.
    pub async fn try_by(&self, tls: &TlsClient) -> Result<Device, String> {
        let device = tls.device(self.encoding).await?;
        device.log_in(&self.op(), format!("{}/{}", self.shop, self.device)).await
    }

    /// Connects and logs in, once.
    ///
    /// # Errors
    /// What happened instead of a welcome.
    pub async fn try_on(&self, url: &str) -> Result<Device, String> {
        let device = Device::try_connect(url, Some(self.encoding)).await?;
        device.log_in(&self.op(), format!("{}/{}", self.shop, self.device)).await
    }
}
