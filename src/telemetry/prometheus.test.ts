import { expect, test } from 'vitest'
import { createHistogram, metricText } from './prometheus.ts'

test('a histogram counts each value in every bucket that it is not above', () => {
  const { observe, samples } = createHistogram([1, 2])
  for (const value of [0, 1, 1.5, 2, 3]) observe('method="GET",', value)
  expect(metricText('duration_seconds', { type: 'histogram', help: 'A duration.' }, samples())).toBe(
    [
      '# HELP duration_seconds A duration.',
      '# TYPE duration_seconds histogram',
      'duration_seconds_bucket{method="GET",le="1"} 2',
      'duration_seconds_bucket{method="GET",le="2"} 4',
      'duration_seconds_bucket{method="GET",le="+Inf"} 5',
      'duration_seconds_sum{method="GET",} 7.5',
      'duration_seconds_count{method="GET",} 5',
      '',
    ].join('\n'),
  )
})

test('a gauge has a line for each of its states', () => {
  const states = { '{state="used"}': 2, '{state="idle"}': 0 }
  expect(metricText('connections', { type: 'gauge', help: 'Connections.' }, states)).toBe(
    '# HELP connections Connections.\n# TYPE connections gauge\nconnections{state="used"} 2\nconnections{state="idle"} 0\n',
  )
})
