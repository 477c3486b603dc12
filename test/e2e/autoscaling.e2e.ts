import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { apply, get, type KubernetesObject, kubectl, psql, reachable, running, settled, until } from './kubectl.ts'
import { startLoad } from './load.ts'

const SMALL_RATE = 1000
const SMALL_LOAD_MS = 60_000
const LOOK_MS = 5000
/** No request of ours takes less of the API's CPU than this: where it seems so, the load was not seen. */
const CPU_MIN_US = 20
const RATE = 200
/**
 * A machine of two cores cannot load four pods with half a core each, nor start twelve: a lower threshold, and one pod more.
 */
const SMALL_MACHINE = `
patches:
  - target: { kind: HorizontalPodAutoscaler, name: users-api }
    patch: |
      - { op: replace, path: /spec/metrics/0/containerResource/target/averageValue, value: 50m }
      - { op: replace, path: /spec/maxReplicas, value: 5 }`
/** Enough to scale up, and no flood for a machine that is too slow for the rate. */
const IN_FLIGHT_MAX = 16
const SMALL_IN_FLIGHT_MAX = 64
const BIG_PAGE = 1000

type Deployment = KubernetesObject & { spec: { replicas: number } }
const replicas = async () => (await get<Deployment>('deployment', 'users-api')).spec.replicas

type Quantity = { averageValue?: string }
type Autoscaler = KubernetesObject & {
  spec: { minReplicas: number; metrics: { containerResource: { target: Quantity } }[] }
  status: { desiredReplicas: number; currentMetrics?: { containerResource?: { current: Quantity } }[] | null }
}
const millicores = ({ averageValue = '' }: Quantity = {}) => {
  const [, number, unit] = /^(\d+)(m?)$/.exec(averageValue) ?? []
  return number === undefined ? undefined : Number(number) * (unit ? 1 : 1000)
}
/** What the autoscaler has decided and, unless it knows nothing yet, the CPU of a pod that it has seen, in thousandths of a core. */
async function autoscaler() {
  const { spec, status } = await get<Autoscaler>('horizontalpodautoscaler', 'users-api')
  const seen = millicores(status.currentMetrics?.[0]?.containerResource?.current)
  const target = millicores(spec.metrics[0]?.containerResource.target)
  return { desired: status.desiredReplicas, seen, target, min: spec.minReplicas }
}

let url: string
let ids: string[]
beforeAll(async () => {
  await running()
  url = await reachable()
  ids = (
    await psql(
      `insert into users (username, email) select 'big-' || n, 'big-' || n || '@example.com' from generate_series(1, ${BIG_PAGE}) n returning id`,
    )
  ).split('\n')
})
afterAll(() => kubectl('delete', 'horizontalpodautoscaler', 'users-api', '--ignore-not-found'))

test('the component hpa takes over a running Deployment, and 1,000 small requests a second need no more pods', async () => {
  // kustomize/README.md#autoscaling: without the record that an apply once set the number, the next one does not take it away.
  await kubectl('annotate', 'deployment', 'users-api', 'kubectl.kubernetes.io/last-applied-configuration-')
  await apply('tests/hpa')
  expect(await replicas()).toBe(4)
  await until('the autoscaler knows the CPU', 120, async () => (await autoscaler()).seen !== undefined)

  const begun = performance.now()
  const load = startLoad({
    url,
    rate: SMALL_RATE,
    inFlightMax: SMALL_IN_FLIGHT_MAX,
    next: (n) => ({ method: 'GET', path: `/users/${ids[n % ids.length]}`, expect: 200 }),
  })
  const looks: Awaited<ReturnType<typeof autoscaler>>[] = []
  // A machine that sends less is not asked for more: what a request costs tells what 1,000 would.
  let rate: number
  try {
    while (performance.now() - begun < SMALL_LOAD_MS) {
      await sleep(LOOK_MS)
      looks.push(await autoscaler())
    }
    rate = load.answers().length / ((performance.now() - begun) / 1000)
  } finally {
    const { failures } = await load.stop('1,000 small requests a second')
    expect(failures).toEqual([])
  }
  const { seen = Number.NaN, target = Number.NaN, min = Number.NaN } = looks.at(-1) ?? {}
  const ofOneUs = (seen * 1000) / (rate / min)
  const ofAll = (seen / rate) * SMALL_RATE
  console.log(
    `  ${Math.round(rate)} a second on ${min} pods: ${seen}m of each, ${Math.round(ofOneUs)} µs a request; ${Math.round(ofAll)}m at ${SMALL_RATE}, of ${target}m`,
  )
  expect(ofOneUs).toBeGreaterThan(CPU_MIN_US)
  expect(ofAll).toBeLessThan(target)
  expect(looks.map(({ desired }) => desired)).toEqual(looks.map(() => min))
  expect(await replicas()).toBe(min)
})

test('with a lower threshold a load that needs it gets more pods, and no apply resets their number', async () => {
  await apply('tests/hpa', SMALL_MACHINE)
  const load = startLoad({
    url,
    rate: RATE,
    inFlightMax: IN_FLIGHT_MAX,
    next: () => ({ method: 'GET', path: `/users?limit=${BIG_PAGE}`, expect: 200 }),
  })
  try {
    await until('there are more than four replicas', 180, async () => (await replicas()) > 4)
    const before = await replicas()
    await apply('tests/hpa', SMALL_MACHINE)
    expect(await replicas()).toBeGreaterThanOrEqual(before)
    await settled()
  } finally {
    const { failures } = await load.stop('scaling up')
    expect(failures).toEqual([])
  }
})
