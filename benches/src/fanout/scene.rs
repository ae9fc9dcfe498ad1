//! Who publishes to whom, on which topics, and how fast.

use std::fmt;
use std::io;

use clap::ValueEnum;
use serde::Serialize;

use crate::devices;
use crate::frames::Qos;

/// How many on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// One publisher, a thousand subscribers.
    #[value(name = "1x1000")]
    Out,
    /// A thousand publishers, one subscriber.
    #[value(name = "1000x1")]
    In,
}

/// Which topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Topics {
    /// Topics of no template: the gateway routes and stores nothing.
    Local,
    /// The devices' own telemetry: the gateway stores it for the cloud, syncs, and routes it.
    Telemetry,
}

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// The next message is published when the deliveries of an earlier one are in: as fast as it goes.
    Windowed,
    /// A fixed number of deliveries per second.
    Fixed,
}

/// One arrangement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Scene {
    /// How many on either side.
    pub shape: Shape,
    /// Of publishes and of subscriptions.
    pub qos: Qos,
    /// How fast.
    pub load: Load,
}

/// Every arrangement, in the order measured.
pub fn all(shapes: &[Shape]) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for &shape in shapes {
        for qos in [Qos::Zero, Qos::One] {
            for load in [Load::Windowed, Load::Fixed] {
                scenes.push(Scene { shape, qos, load });
            }
        }
    }
    scenes
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out => "1 to 1000",
            Self::In => "1000 to 1",
        })
    }
}

impl fmt::Display for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Telemetry => "telemetry",
        })
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let qos = u8::from(self.qos == Qos::One);
        match self.load {
            Load::Windowed => write!(f, "{}, QoS {qos}, window {}", self.shape, self.window()),
            Load::Fixed => {
                write!(f, "{}, QoS {qos}, {} deliveries/s", self.shape, self.deliveries_per_second())
            }
        }
    }
}

impl Scene {
    /// How many publish.
    pub fn publishers(&self) -> u32 {
        match self.shape {
            Shape::Out => 1,
            Shape::In => 1000,
        }
    }

    /// How many subscribe.
    pub fn subscribers(&self) -> u32 {
        match self.shape {
            Shape::Out => 1000,
            Shape::In => 1,
        }
    }

    /// Publishes altogether whose deliveries are not all in. So few that no server has to drop any: 256 of them fill
    /// no socket.
    pub fn window(&self) -> u16 {
        match self.shape {
            Shape::Out => 16,
            Shape::In => 256,
        }
    }

    /// Deliveries per second at a fixed rate.
    pub fn deliveries_per_second(&self) -> u32 {
        match self.shape {
            Shape::Out => 20_000,
            Shape::In => 5_000,
        }
    }

    /// Publishes per second at a fixed rate; `None` as fast as the window allows.
    pub fn rate(&self) -> Option<u32> {
        match self.load {
            Load::Windowed => None,
            Load::Fixed => Some(self.deliveries_per_second() / self.subscribers()),
        }
    }
}

impl Topics {
    /// The topic of a publisher.
    pub fn topic(self, publisher: u32) -> String {
        match self {
            Self::Local => format!("bench/{publisher}"),
            Self::Telemetry => format!("devices/{}/telemetry", devices::id(publisher)),
        }
    }

    /// What every subscriber asks for: the one topic, or all of them.
    pub fn filter(self, shape: Shape) -> String {
        match (shape, self) {
            (Shape::Out, _) => self.topic(0),
            (Shape::In, Self::Local) => "bench/+".to_owned(),
            (Shape::In, Self::Telemetry) => "devices/+/telemetry".to_owned(),
        }
    }

    /// The gateway's access rule that lets the scene happen, as lines of TOML.
    pub fn rule(self) -> [&'static str; 3] {
        match self {
            Self::Local => ["effect = \"allow\"", "action = \"all\"", "filter = \"bench/#\""],
            Self::Telemetry => {
                ["effect = \"allow\"", "action = \"subscribe\"", "filter = \"devices/+/telemetry\""]
            }
        }
    }
}

/// Puts the moment of its sending into the start of a payload.
pub(super) fn stamp(payload: &mut [u8], micros: u64) {
    if let Some(start) = payload.first_chunk_mut::<8>() {
        *start = micros.to_be_bytes();
    }
}

/// The moment in a payload.
pub(super) fn stamped(payload: &[u8]) -> io::Result<u64> {
    let start = payload.first_chunk::<8>().ok_or_else(|| io::Error::other("a delivery without its stamp"))?;
    Ok(u64::from_be_bytes(*start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_is_measured_once() {
        let scenes = all(&[Shape::Out, Shape::In]);
        let mut names: Vec<String> = scenes.iter().map(Scene::to_string).collect();
        assert_eq!(names.len(), 8);
        assert!(names.contains(&"1 to 1000, QoS 1, window 16".to_owned()), "{names:?}");
        assert!(names.contains(&"1000 to 1, QoS 0, 5000 deliveries/s".to_owned()), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
    }

    #[test]
    fn rates_are_of_publishes() {
        let rate = |shape| Scene { shape, qos: Qos::Zero, load: Load::Fixed }.rate();
        assert_eq!((rate(Shape::Out), rate(Shape::In)), (Some(20), Some(5_000)));
    }

    #[test]
    fn subscribers_ask_for_what_is_published() {
        assert_eq!(Topics::Local.filter(Shape::Out), Topics::Local.topic(0));
        assert_eq!(Topics::Telemetry.topic(7), "devices/device-000007/telemetry");
        assert_eq!(Topics::Telemetry.filter(Shape::In), "devices/+/telemetry");
    }

    #[test]
    fn a_stamp_is_read_as_it_was_put() {
        let mut payload = [0; 96];
        stamp(&mut payload, 77);
        assert_eq!(stamped(&payload).unwrap(), 77);
        assert!(stamped(&payload[..7]).is_err());
    }
}
