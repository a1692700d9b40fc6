//! Groups of small graphs.
use super::*;
#[test]
fn try_all() {
    let dir = std::path::Path::new("/work/shared/data");
    let mut files: Vec<_> = std::fs::read_dir(dir.join("onnx-models"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.push(dir.join("minilm-l6/model_f16w.onnx"));
    files.sort();
    for f in files {
        let m = crate::onnx::read(&f).unwrap();
        let t = crate::graph::shape::infer(&m.graph, &Default::default()).unwrap();
        let now = std::time::Instant::now();
        let g = groups(&m.graph, &t);
        println!("== {} {:?}\n{g}", f.display(), now.elapsed());
    }
}
