// The text format of Prometheus (prometheus.io/docs/instrumenting/exposition_formats).

/** The values of a metric, each by the rest of its name: none, or labels such as `{state="idle"}`. */
export type Samples = Record<string, number>

/** Counts values in buckets, each up to one of `bounds`, by labels such as `method="GET",`. */
export function createHistogram(bounds: readonly number[]) {
  const series = new Map<string, { counts: number[]; sum: number }>()
  return {
    observe(labels: string, value: number) {
      let one = series.get(labels)
      if (!one) {
        one = { counts: [], sum: 0 }
        series.set(labels, one)
      }
      let bucket = 0
      while (value > (bounds[bucket] ?? Number.POSITIVE_INFINITY)) bucket++
      one.counts[bucket] = (one.counts[bucket] ?? 0) + 1
      one.sum += value
    },
    samples() {
      const samples: Samples = {}
      for (const [labels, { counts, sum }] of series) {
        let count = 0
        for (const [bucket, bound] of [...bounds, '+Inf'].entries()) {
          count += counts[bucket] ?? 0
          samples[`_bucket{${labels}le="${bound}"}`] = count
        }
        Object.assign(samples, { [`_sum{${labels}}`]: sum, [`_count{${labels}}`]: count })
      }
      return samples
    },
  }
}

/** A metric as Prometheus reads it. */
export function metricText(name: string, { type, help }: { type: string; help: string }, samples: Samples): string {
  const lines = Object.entries(samples).map(([rest, value]) => `${name}${rest} ${value}\n`)
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`
}
