;; Cannot even take its request.
(memory (export "memory") 2)
(func $alloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
;; include about.inc
;; include verdicts.inc
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  unreachable)
