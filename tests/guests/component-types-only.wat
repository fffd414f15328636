(component
  ;; Imports an instance with nothing but a type, as the toolchains of other
  ;; languages do; that is no import in our sense. (It exports nothing either.)
  (import "sprag:policy/types@1.0.0" (instance
    (type (enum "a" "b"))
    (export "status" (type (eq 0))))))
