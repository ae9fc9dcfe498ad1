use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
fn main() {
    let d = std::env::temp_dir().join("penstock-link");
    let db = rocksdb::DB::open_default(&d).expect("open");
    db.put(b"k", b"v").expect("put");
    let m = MockCluster::new(1).expect("mock");
    m.create_topic("t", 2, 1).expect("topic");
    let p: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", m.bootstrap_servers())
        .set("enable.idempotence", "true").set("enable.gapless.guarantee", "true")
        .create().expect("producer");
    p.send(BaseRecord::to("t").key("a").payload("b")).map_err(|e| e.0).expect("send");
    p.flush(std::time::Duration::from_secs(10)).expect("flush");
    println!("rocksdb {:?} librdkafka {:?}", db.get(b"k"), rdkafka::util::get_rdkafka_version());
}
