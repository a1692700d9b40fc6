//! Options that are a name alone, which stands for the defaults, or a name with parameters.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};

/// Reads `"name"` or `{ name = { parameter = … } }` as an enum that serde tags externally.
///
/// # Errors
/// When there is no such name, or a parameter is missing, unknown or wrong.
pub(crate) fn name_or_table<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Named(PhantomData))
}

struct Named<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name, or a table of one name with its parameters")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<T, E> {
        let alone: Result<T, E> = T::deserialize(name.into_deserializer());
        alone.or_else(|_| {
            let defaults = BTreeMap::<String, String>::new();
            T::deserialize(MapAccessDeserializer::new(MapDeserializer::new(std::iter::once((name, defaults)))))
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// The JSON Schema of what [`name_or_table`] reads.
pub(crate) struct NameOrTable<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for NameOrTable<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        format!("NameOrTable<{}>", T::schema_id()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        let forms = schema.get_mut("oneOf").and_then(|forms| forms.as_array_mut());
        let forms = forms.expect("an enum that serde tags externally has a form a variant");
        let names: Vec<_> = forms.iter().filter_map(name_alone).collect();
        forms.extend(names);
        schema
    }
}

/// The form of a variant without parameters, if it is one with parameters that can all be left out.
fn name_alone(form: &serde_json::Value) -> Option<serde_json::Value> {
    let (name, parameters) = form.get("properties")?.as_object()?.iter().next()?;
    let mut alone = json_schema!({ "type": "string", "const": name });
    if let Some(description) = form.get("description") {
        alone.insert("description".to_string(), description.clone());
    }
    (parameters["type"] == "object" && parameters.get("required").is_none()).then(|| alone.to_value())
}

#[cfg(test)]
mod tests {
    //! Names, tables and what is neither.

    use crate::learn::train::fit::TrainOptions;
    use crate::learn::train::loss::Loss;
    use crate::learn::train::optimizer::Optimizer;

    #[test]
    fn a_name_stands_for_its_defaults() {
        let read = |text: &str| toml::from_str::<TrainOptions>(text).map_err(|error| error.message().to_string());
        let optimizer = |text: &str| read(&format!("optimizer = {text}")).map(|options| options.optimizer);
        let sgd = |momentum, nesterov| Ok(Optimizer::Sgd { momentum, nesterov });
        assert_eq!(optimizer("'sgd'"), sgd(0.9, false));
        assert_eq!(optimizer("{ sgd = { momentum = 0.5, nesterov = true } }"), sgd(0.5, true));
        assert_eq!(optimizer("'adamw'"), Ok(Optimizer::default()));
        let unknown = optimizer("'adam'").expect_err("there is none");
        assert!(unknown.contains("unknown variant `adam`, expected one of `sgd`, `adamw`, `lion`"), "{unknown}");
        assert!(optimizer("{ sgd = { moment = 0.5 } }").expect_err("there is none").contains("moment"));
        assert_eq!(read("loss = 'mse'").map(|options| options.loss), Ok(Loss::Mse));
        assert_eq!(read("loss = 'huber'").map(|options| options.loss), Ok(Loss::Huber { delta: 1.0 }));
    }
}
