;; Asks for a table of two thousand elements.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(table $t 1 funcref)
(func $grows (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (drop (table.grow $t (ref.null func) (i32.const 2000)))
  (call $answer (i32.load offset=188 (local.get $request)) (i32.const 0x500) (i32.const 4)))
