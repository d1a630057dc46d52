//! Temporary.
use modelport_frontends::{Source, tensorflow};
use modelport_ir::{Layout, layout, validate};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let source = Source {
        network: Some(args[1].clone().into()),
        weights: (args[2] != "-").then(|| args[2].clone().into()),
        outputs: args[4..].to_vec(),
        ..Default::default()
    };
    let run = || -> modelport_ir::Result<()> {
        let t = std::time::Instant::now();
        let mut graph = tensorflow::read(&source)?;
        eprintln!("read {:?} {} nodes", t.elapsed(), graph.len());
        let ports = if std::env::var_os("SRC").is_some() { layout::Ports::Source } else { layout::Ports::Target };
        layout::convert(&mut graph, Layout::ChannelsFirst, ports)?;
        eprintln!("layout {:?}", t.elapsed());
        validate::validate(&graph)?;
        let options = modelport_backends::pytorch::Options { weights_file: "m.pth".into(), ..Default::default() };
        let g = modelport_backends::pytorch::generate(&graph, &options)?;
        eprintln!("generate {:?}", t.elapsed());
        std::fs::write(format!("{}.py", args[3]), &g.code).unwrap();
        modelport_backends::weights::write(
            std::path::Path::new(&format!("{}.pth", args[3])),
            &g.params.iter().map(|p| (p.key.clone(), p.tensor.clone())).collect::<Vec<_>>(),
        )?;
        eprintln!("weights {:?}", t.elapsed());
        Ok(())
    };
    if let Err(e) = run() {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}
