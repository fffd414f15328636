(component
  ;; Has every name, but its `decide` takes nothing and answers a number.
  (core module $m (func (export "decide") (result i32) i32.const 7))
  (core instance $i (instantiate $m))
  (func $decide (result u32) (canon lift (core func $i "decide")))
  (instance $guard (export "decide" (func $decide)))
  (instance $about (export "describe" (func $decide)))
  (export "sprag:policy/guard@1.0.0" (instance $guard))
  (export "sprag:policy/about@1.0.0" (instance $about)))
