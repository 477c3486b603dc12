import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import {
  apiPods,
  apply,
  get,
  isReady,
  kubectl,
  kubectlWithInput,
  type Pod,
  psql,
  reachable,
  running,
  settled,
  until,
} from './kubectl.ts'
import { missing, startLoad } from './load.ts'

const RATE = 60
/** The service's DEADLINE_MS, and a second for everything else. */
const LONGEST_MS = 6000

let url: string
beforeAll(async () => {
  await running()
  url = await reachable()
})

const databaseIsReady = (other: string) =>
  until('the database is ready', 150, async () => {
    const pod = await get<Pod>('pod', 'users-db-0').catch(() => undefined)
    return pod !== undefined && pod.metadata.uid !== other && isReady(pod)
  })

/** Loads the service while `deed` takes the database away, and until it has been well for a while. */
async function withoutDatabase(title: string, deed: () => Promise<void>) {
  const restarts = async () =>
    (await apiPods()).map(({ metadata, status }) => [metadata.uid, status.containerStatuses?.[0]?.restartCount])
  const before = await restarts()
  const load = startLoad({ url, rate: RATE })
  await sleep(2000)
  await deed()
  await until('every answer of the last 3 s is right', 60, async () => {
    const recent = load.answers().filter(({ at }) => Date.now() - at.getTime() < 3000)
    return recent.length > RATE && recent.every(({ expected }) => expected)
  })
  const report = await load.stop(title)
  const wrong = report.failures.filter(({ status }) => status !== 503)
  expect(wrong, 'answers other than 2xx and 503').toEqual([])
  expect(report.slowestMs).toBeLessThan(LONGEST_MS)
  expect(await missing(url, report.created), 'users that were answered with 201').toEqual([])
  expect(await restarts(), 'API pods and their restarts').toEqual(before)
  return report
}

test('while the PostgreSQL pod is deleted answers are 2xx or 503, it comes back by itself with its claim, and every 201 is there', async () => {
  const claim = await get('pvc', 'data-users-db-0')
  const pod = await get('pod', 'users-db-0')
  const { failures } = await withoutDatabase('PostgreSQL pod deleted', async () => {
    await kubectl('delete', 'pod', 'users-db-0', '--wait=false')
    await databaseIsReady(pod.metadata.uid)
  })
  expect(failures.length, '503s: without any, nothing was tested').toBeGreaterThan(0)
  expect((await get('pvc', 'data-users-db-0')).metadata.uid).toBe(claim.metadata.uid)
})

test('when a server process is killed PostgreSQL recovers in its pod, which the probes leave alone', async () => {
  const pod = await get<Pod>('pod', 'users-db-0')
  await withoutDatabase('server process killed', async () => {
    const pid = await psql("select pid from pg_stat_activity where backend_type = 'checkpointer'")
    await kubectl('exec', 'users-db-0', '--', 'sh', '-c', `kill -9 ${pid}`)
    await sleep(3000)
    await databaseIsReady('another')
  })
  const after = await get<Pod>('pod', 'users-db-0')
  expect(after.metadata.uid).toBe(pod.metadata.uid)
  expect(after.status.containerStatuses?.[0]?.restartCount).toBe(pod.status.containerStatuses?.[0]?.restartCount)
})

test('without PostgreSQL for a minute every answer is a 503 of the service itself, and no pod leaves the load balancer', async () => {
  const { failures } = await withoutDatabase('PostgreSQL at 0 replicas', async () => {
    await kubectl('scale', 'statefulset/users-db', '--replicas=0')
    await sleep(60_000)
    expect((await apiPods()).filter(isReady)).toHaveLength(4)
    await kubectl('scale', 'statefulset/users-db', '--replicas=1')
    await databaseIsReady('another')
  })
  expect(failures.length).toBeGreaterThan(RATE)
  // The load balancer's own answers have no request id.
  expect(failures.filter(({ requestId }) => !requestId)).toEqual([])
})

test('an image of PostgreSQL that does not exist is undone by applying the right one, without a hand', async () => {
  await apply('overlays/gke', 'images: [{name: docker.io/library/postgres, newTag: none}]')
  await until('the pod cannot start', 120, async () => {
    const pod = await get<Pod>('pod', 'users-db-0').catch(() => undefined)
    return pod?.status.containerStatuses?.some(({ state }) => /Image|ErrImage/.test(state.waiting?.reason ?? ''))
  })
  await apply('overlays/gke')
  await settled()
  await until('users are served', 60, async () => (await fetch(`${url}/users`)).ok)
})

test('a StatefulSet of an earlier commit is replaced beside its running pod by the one step that kustomize/README.md names', async () => {
  const claim = await get('pvc', 'data-users-db-0')
  const before = await (await fetch(`${url}/users?limit=1`)).json()
  type StatefulSet = { spec: { podManagementPolicy: string }; metadata: object }
  const { spec } = await get<StatefulSet>('statefulset', 'users-db')
  await kubectl('delete', 'statefulset', 'users-db', '--cascade=orphan')
  const metadata = { name: 'users-db' }
  const earlier = {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata,
    spec: { ...spec, podManagementPolicy: 'OrderedReady' },
  }
  await kubectlWithInput(JSON.stringify(earlier), 'apply', '--filename=-')
  await settled()
  await expect(apply('overlays/gke')).rejects.toThrow(/forbidden/)

  const pod = await get('pod', 'users-db-0')
  await kubectl('delete', 'statefulset', 'users-db', '--cascade=orphan')
  await apply('overlays/gke')
  await settled()
  expect((await get<StatefulSet>('statefulset', 'users-db')).spec.podManagementPolicy).toBe('Parallel')
  expect((await get('pod', 'users-db-0')).metadata.uid).toBe(pod.metadata.uid)
  expect((await get('pvc', 'data-users-db-0')).metadata.uid).toBe(claim.metadata.uid)
  expect(await (await fetch(`${url}/users?limit=1`)).json()).toEqual(before)
})
