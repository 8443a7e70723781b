"""Answers for a data set, by actors that each keep an engine: python examples/ray/batch.py"""

import ray

import pagedcore


class Answer:
    """Ray makes one for every actor and calls it with batches of rows."""

    def __init__(self) -> None:
        self.llm = pagedcore.LLM(kv_cache_memory="128MiB", threads=1, progress=False)
        self.params = pagedcore.SamplingParams(temperature=0, max_tokens=16)

    def __call__(self, batch):
        outputs = self.llm.generate(list(batch["prompt"]), self.params, progress=False)
        batch["answer"] = [output.outputs[0].text for output in outputs]
        return batch


if __name__ == "__main__":
    ray.init(include_dashboard=False, _node_ip_address="127.0.0.1")
    rows = ray.data.from_items([{"prompt": f"{n} and {n} are"} for n in range(64)])
    answered = rows.map_batches(Answer, batch_size=32, concurrency=1, num_cpus=1)
    for row in answered.take(4):
        print(row["prompt"], "->", row["answer"])
    print(answered.count(), "answers")
