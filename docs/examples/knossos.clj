;; Judges one register of a history with Knossos (project.clj needs [knossos "0.3.15"] or newer):
;;   torture export history.jsonl --format edn --key register-0 > register.edn
;;   lein run -m clojure.main knossos.clj register.edn
(require '[clojure.edn :as edn]
         '[clojure.string :as str]
         '[knossos.model :as model]
         '[knossos.wgl :as wgl])

(doseq [file *command-line-args*]
  (let [operations (->> (str/split-lines (slurp file))
                        (map edn/read-string)
                        ;; What the nemesis did is no operation of the register.
                        (filterv #(integer? (:process %))))
        judged (wgl/analysis (model/cas-register) operations)]
    (println file (count operations) "events, valid?" (:valid? judged) (:op judged))))
(shutdown-agents)
