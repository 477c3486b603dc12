// The text format of Prometheus (prometheus.io/docs/instrumenting/exposition_formats).

/** The values of a metric, each by the rest of its name: none, or labels such as `{state="idle"}`. */
export type Samples = Record<string, number>

/** Counts values in buckets, each up to one of `bounds`, by labels such as `method="GET",`. */
export function createHistogram(bounds: readonly number[]) {
  const newSeries = () => ({ buckets: bounds.map((bound) => ({ bound, count: 0 })), sum: 0, count: 0 })
  const series = new Map<string, ReturnType<typeof newSeries>>()
  return {
    observe(labels: string, value: number) {
      const one = series.get(labels) ?? newSeries()
      series.set(labels, one)
      for (const bucket of one.buckets) if (value <= bucket.bound) bucket.count++
      one.sum += value
      one.count++
    },
    samples() {
      const samples: Samples = {}
      for (const [labels, { buckets, sum, count }] of series) {
        for (const bucket of buckets) samples[`_bucket{${labels}le="${bucket.bound}"}`] = bucket.count
        samples[`_bucket{${labels}le="+Inf"}`] = count
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
