//! A device as a [`Runtime`]: what compares values need not know where they come from.

use super::{Measuring, run_agent};
use crate::graph::tensor::Tensor;
use crate::measure::runtime::explain::{Explanation, Runs};
use crate::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError, Session, ValueInfo};
use crate::measure::target::Target;

/// A device that is run for its values.
#[derive(Clone, Debug)]
pub struct Device {
    target: Target,
}

impl Device {
    /// The device of this target.
    pub fn new(target: Target) -> Device {
        Device { target }
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

struct DeviceSession {
    target: Target,
    model: ModelBytes,
    measuring: Measuring,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

impl Runtime for Device {
    fn name(&self) -> &'static str {
        "device"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// What goes in and comes out is asked of tract on this machine. Threads are the target's.
    fn load(&self, model: &ModelBytes, options: &Options) -> Result<Box<dyn Session>, RuntimeError> {
        let here = super::super::tract::Tract.load(model, options)?;
        let measuring = Measuring { optimization: options.optimization, budget_s: 0.0, ..Measuring::default() };
        Ok(Box::new(DeviceSession {
            target: self.target.clone(),
            model: model.clone(),
            measuring,
            inputs: here.inputs().to_vec(),
            outputs: here.outputs().to_vec(),
        }))
    }

    fn explain(
        &self,
        _model: &ModelBytes,
        _options: &Options,
        _inputs: &[(String, Tensor)],
        _runs: Runs,
    ) -> Result<Explanation, RuntimeError> {
        Err(RuntimeError::Option {
            runtime: "a device",
            option: "explanation: the agent gives values and times".to_owned(),
        })
    }
}

impl Session for DeviceSession {
    fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let mut outputs = self.run_all(std::slice::from_ref(&inputs.to_vec()))?;
        Ok(outputs.pop().unwrap_or_default())
    }

    /// All on one way to the device and back.
    fn run_all(&mut self, feeds: &[Vec<(String, Tensor)>]) -> Result<Vec<Vec<(String, Tensor)>>, RuntimeError> {
        let report = run_agent(&self.target, &self.model, feeds, &self.measuring);
        let report = report.map_err(|error| RuntimeError::Device { reason: error.to_string(), hint: error.hint() })?;
        Ok(report.outputs)
    }
}
