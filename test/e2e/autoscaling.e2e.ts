import { afterAll, beforeAll, expect, test } from 'vitest'
import { apply, get, type KubernetesObject, kubectl, psql, reachable, running, settled, until } from './kubectl.ts'
import { startLoad } from './load.ts'

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
const BIG_PAGE = 1000

type Deployment = KubernetesObject & { spec: { replicas: number } }
const replicas = async () => (await get<Deployment>('deployment', 'users-api')).spec.replicas

beforeAll(running)
afterAll(() => kubectl('delete', 'horizontalpodautoscaler', 'users-api', '--ignore-not-found'))

test('the component hpa takes over a running Deployment, scales it up under load, and no apply resets it', async () => {
  const url = await reachable()
  await psql(
    `insert into users (username, email) select 'big-' || n, 'big-' || n || '@example.com' from generate_series(1, ${BIG_PAGE}) n`,
  )

  // kustomize/README.md#autoscaling: without the record that an apply once set the number, the next one does not take it away.
  await kubectl('annotate', 'deployment', 'users-api', 'kubectl.kubernetes.io/last-applied-configuration-')
  await apply('tests/hpa', SMALL_MACHINE)
  expect(await replicas()).toBe(4)

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
