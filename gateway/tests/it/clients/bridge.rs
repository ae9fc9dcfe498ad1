//! A mosquitto that stands on site already and is bridged to the gateway.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Site;
use super::mosquitto::{Subscriber, done, publish};
use super::talker::Talker;

/// A mosquitto with a bridge, reached through a socket in a folder of its own.
struct Bridge {
    talker: Talker,
    socket: PathBuf,
    /// How many topics it subscribes to.
    subscriptions: usize,
    _folder: tempfile::TempDir,
}

impl Bridge {
    /// Starts it and waits until the gateway accepted the bridge and its subscriptions.
    fn start(site: &Site, version: &str, topics: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("socket");
        let file = folder.path().join("mosquitto.conf");
        let mut lines = vec![
            // Has an effect only where the tests run as root: nobody else may use their folder then.
            "user root".to_owned(),
            format!("listener 0 {}", socket.display()),
            "allow_anonymous true".to_owned(),
            "log_dest stdout".to_owned(),
            "log_type all".to_owned(),
            "connection gateway".to_owned(),
            format!("address {}", site.plain()),
            "remote_clientid site-bridge".to_owned(),
            format!("bridge_protocol_version {version}"),
            // The notifications would go below $SYS, which is the gateway's own. The private version number of
            // mosquitto's bridges is no version of MQTT.
            "notifications false".to_owned(),
            "try_private false".to_owned(),
            "cleansession false".to_owned(),
            "restart_timeout 1".to_owned(),
        ];
        lines.extend(topics.iter().map(|topic| format!("topic {topic}")));
        std::fs::write(&file, lines.join("\n")).expect("written");
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto", "-c"]).arg(&file);
        let subscriptions = topics.iter().filter(|topic| !topic.contains(" out ")).count();
        let mut bridge =
            Self { subscriptions, talker: Talker::start("mosquitto", &mut command), socket, _folder: folder };
        bridge.connected();
        bridge
    }

    /// Waits for the acknowledgements of its subscriptions, which it makes each time it connects.
    fn connected(&mut self) {
        let mut subscribed = 0;
        while subscribed < self.subscriptions {
            let line = self.talker.line("a SUBACK of the gateway");
            assert!(line.is_some(), "it ended: {:#?}", self.talker.said());
            subscribed += usize::from(line.unwrap_or_default().contains("Received SUBACK"));
        }
    }

    /// Publishes at QoS 1 at the mosquitto.
    fn publish(&self, topic: &str, payload: &str) {
        let mut command = Command::new("mosquitto_pub");
        command.arg("--unix").arg(&self.socket).args(["-q", "1", "-t", topic, "-m", payload]);
        done("mosquitto_pub", &mut command);
    }

    /// Somebody who subscribed at the mosquitto.
    fn subscriber(&self, topic: &str) -> Subscriber {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", "mosquitto_sub", "--unix"]).arg(self.path()).args(["-q", "1", "-t", topic]);
        Subscriber::run(command)
    }

    fn path(&self) -> &Path {
        &self.socket
    }
}

#[test]
fn a_mosquitto_on_site_exchanges_messages_with_the_gateway() {
    for (version, topics) in
        [("mqttv311", ["up/# out 1", "down/# in 1"]), ("mqttv50", ["up/# both 1", "down/# both 1"])]
    {
        let mut site = Site::start();
        let mut bridge = Bridge::start(&site, version, &topics);
        let mut above = Subscriber::start(&site, &["-q", "1", "-t", "up/#"]);
        let mut below = bridge.subscriber("down/#");
        bridge.publish("up/1", "from below");
        assert_eq!(above.next()["payload"], "from below", "{version}");
        publish(&site, &["-q", "1", "-t", "down/1", "-m", "from above"]);
        assert_eq!(below.payload(), "from above", "{version}");
        // With MQTT 5 both sides subscribe to the same topics: nothing may come back to where it was published.
        bridge.publish("up/1", "sentinel");
        publish(&site, &["-q", "1", "-t", "down/1", "-m", "sentinel"]);
        assert_eq!(
            (above.payload(), below.payload()),
            ("sentinel".to_owned(), "sentinel".to_owned()),
            "{version}"
        );

        // A session above, so that what the bridge kept while the gateway was away has somewhere to go.
        above.kill();
        let session = ["-V", "mqttv5", "-q", "1", "-t", "up/#", "-c", "-i", "above"];
        Subscriber::start(&site, &[&session[..], &["-E"]].concat()).rest();
        site.kill_and_restart_after(|| bridge.publish("up/2", "while it was away"));
        bridge.connected();
        publish(&site, &["-q", "1", "-t", "down/2", "-m", "after"]);
        assert_eq!(below.payload(), "after", "{version}");
        let mut above = Subscriber::start(&site, &session);
        assert_eq!(above.payload(), "while it was away", "{version}");
    }
}
