;; Asks for one page more until somebody says no.
;; include memory.inc
;; include about.inc
;; include verdicts.inc
(func $grows (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  (loop $again
    (drop (memory.grow (i32.const 1)))
    (br $again))
  unreachable)
