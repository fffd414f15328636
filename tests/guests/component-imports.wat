(component
  ;; Imports an instance with a function in it.
  (import "wasi:clocks/wall-clock@0.2.0" (instance (export "now" (func (result u64))))))
