//! What is looked at before compiling: that the bytes are WebAssembly, that
//! they import nothing, and that they are a component, made one where they are
//! a core module with the interface's types embedded.
//!
//! Runs in the compiling child, so that no parser of ours meets uploaded bytes
//! inside the host.

use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::TypesRef;
use wasmparser::{KnownCustom, Name, Parser, Payload, Validator};

use super::PolicyError;
use super::classify::clip;

/// Bytes of a function's name. Each of a trap's frames is given a copy of its own.
const NAME_BYTES: usize = 64 << 10;

/// The component that these bytes are or become.
///
/// # Errors
/// [`PolicyError::NotWasm`], [`PolicyError::Import`] with the import's name,
/// [`PolicyError::WrongInterface`] for a core module that does not say what it
/// exports, [`PolicyError::Compile`] for a name that is no name.
pub fn component(bytes: &[u8]) -> Result<Vec<u8>, PolicyError> {
    if !Parser::is_core_wasm(bytes) && !Parser::is_component(bytes) {
        return Err(not_wasm("they do not begin as one"));
    }
    let types = Validator::new().validate_all(bytes).map_err(not_wasm)?;
    bound_names(bytes)?;
    if Parser::is_component(bytes) {
        refuse_imports(bytes, types.as_ref())?;
        return Ok(bytes.to_vec());
    }
    if let Some((module, name, _)) = types.as_ref().core_imports().into_iter().flatten().next() {
        return Err(PolicyError::Import { import: format!("{module} {name}") });
    }
    let wrong = |e: anyhow::Error| PolicyError::WrongInterface { why: clip(format!("{e:#}")) };
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(bytes)
        .map_err(wrong)?
        .encode()
        .map_err(wrong)
}

fn not_wasm(why: impl ToString) -> PolicyError {
    PolicyError::NotWasm { why: clip(why.to_string()) }
}

/// Of all modules in it. What is no name section is none: it means nothing to wasmtime either.
fn bound_names(bytes: &[u8]) -> Result<(), PolicyError> {
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::CustomSection(section) = payload.map_err(not_wasm)? else { continue };
        let KnownCustom::Name(names) = section.as_known() else { continue };
        let functions = names.into_iter().map_while(Result::ok).filter_map(|part| match part {
            Name::Function(functions) => Some(functions),
            _ => None,
        });
        let names = functions.flat_map(|functions| functions.into_iter().map_while(Result::ok));
        if let Some(long) = names.map(|naming| naming.name.len()).find(|length| *length > NAME_BYTES) {
            let why =
                format!("a function's name has {long} bytes; at most {NAME_BYTES} are taken (strip it)");
            return Err(PolicyError::Compile { why });
        }
    }
    Ok(())
}

/// Refuses what a component's own import section asks for, types excepted: a
/// guest's toolchain names the types it shares with its host as an import.
fn refuse_imports(bytes: &[u8], types: TypesRef<'_>) -> Result<(), PolicyError> {
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(not_wasm)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let name = import.map_err(not_wasm)?.name.name;
                    if let Some(item) = types.component_item_for_import(name) {
                        refuse_import(name, &item.ty, types)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn refuse_import(name: &str, ty: &ComponentEntityType, types: TypesRef<'_>) -> Result<(), PolicyError> {
    match ty {
        ComponentEntityType::Type { .. } => Ok(()),
        ComponentEntityType::Instance(id) => types[*id]
            .exports
            .iter()
            .try_for_each(|(inner, item)| refuse_import(&format!("{name} {inner}"), &item.ty, types)),
        ComponentEntityType::Module(_)
        | ComponentEntityType::Func(_)
        | ComponentEntityType::Value(_)
        | ComponentEntityType::Component(_) => Err(PolicyError::Import { import: name.to_owned() }),
    }
}
