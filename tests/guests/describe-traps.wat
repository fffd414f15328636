;; Traps when it is asked who it is.
;; include memory.inc
(func (export "sprag:policy/about@1.0.0#describe") (result i32) unreachable)
(func (export "sprag:policy/guard@1.0.0#decide") (param $request i32) (result i32)
  unreachable)
