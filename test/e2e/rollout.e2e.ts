import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  allGone,
  apiPods,
  imageOf,
  kubectl,
  kubectlWithInput,
  NAMESPACE,
  reachable,
  readyApiPods,
  running,
  settled,
  until,
} from './kubectl.ts'
import { missing, type Report, startLoad } from './load.ts'

const RATE = 60
/** How long a proxy may need to hear of a pod that vanished without a word. */
const PROXY_NOTICES_MS = 15_000

let url: string
beforeAll(async () => {
  await running()
  url = await reachable()
})

/** Runs `deed` under a constant load, which goes on until the last pod that it ended is gone. */
async function underLoad(title: string, deed: () => Promise<void>): Promise<Report> {
  const load = startLoad({ url, rate: RATE })
  try {
    await sleep(2000)
    await deed()
    await settled()
    await allGone()
    await sleep(2000)
  } catch (error) {
    await load.stop(title)
    throw error
  }
  const report = await load.stop(title)
  expect(report.sent).toBeGreaterThan(RATE * 4)
  expect(await missing(url, report.created), 'users that were answered with 201').toEqual([])
  return report
}

const fourAreReady = () => until('four pods are ready', 120, async () => (await readyApiPods()).length === 4)

describe('under a constant load of reads and writes no request fails', () => {
  test('in a rolling update to another image, and back', async () => {
    const { name, full } = await imageOf('overlays/gke')
    const next = process.env.E2E_IMAGE_NEXT ?? `${name}:next`
    const { failures } = await underLoad('rolling update', async () => {
      await kubectl('set', 'image', 'deployment/users-api', `*=${next}`)
      await settled()
      const pods = await readyApiPods()
      const images = pods.flatMap(({ status }) => status.containerStatuses?.map(({ image }) => image))
      expect(pods).toHaveLength(4)
      expect(images.length).toBe(4)
      await kubectl('set', 'image', 'deployment/users-api', `*=${process.env.E2E_IMAGE ?? full}`)
    })
    expect(failures).toEqual([])
  })

  test('when each API pod is deleted in turn', async () => {
    const { failures } = await underLoad('each pod deleted', async () => {
      const pods = await readyApiPods()
      expect(pods).toHaveLength(4)
      for (const { metadata } of pods) {
        await kubectl('delete', 'pod', metadata.name, '--wait=false')
        await sleep(1000)
        await fourAreReady()
      }
    })
    expect(failures).toEqual([])
  })

  test('when it is scaled from 4 to 1 to 4', async () => {
    const { failures } = await underLoad('4 to 1 to 4', async () => {
      await kubectl('scale', 'deployment/users-api', '--replicas=1')
      await until('one pod is left', 60, async () => (await readyApiPods()).length === 1)
      await sleep(3000)
      await kubectl('scale', 'deployment/users-api', '--replicas=4')
      await fourAreReady()
    })
    expect(failures).toEqual([])
  })

  test('when every API pod is evicted, as a drain does, of which the budget allows one at a time', async () => {
    const evict = (name: string) =>
      kubectlWithInput(
        JSON.stringify({ apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace: NAMESPACE } }),
        'create',
        '--raw',
        `/api/v1/namespaces/${NAMESPACE}/pods/${name}/eviction`,
        '--filename=-',
      ).then(
        () => true,
        (error: { stderr?: string }) => {
          if (!/disruption budget/.test(error.stderr ?? '')) throw error
          return false
        },
      )
    let refused = 0
    const { failures } = await underLoad('evicted', async () => {
      for (const { metadata } of await readyApiPods()) {
        await until(`${metadata.name} may be evicted`, 60, async () => {
          const gone = await evict(metadata.name)
          if (!gone) refused++
          return gone
        })
      }
    })
    expect(refused, 'evictions that the budget refused for the moment').toBeGreaterThan(0)
    expect(failures).toEqual([])
  })
})

test('of a pod that is killed with no grace only what was on its way to it fails, and no 201 is lost', async () => {
  let killedAt = 0
  const { failures } = await underLoad('killed with no grace', async () => {
    const [pod] = await readyApiPods()
    killedAt = Date.now()
    await kubectl('delete', 'pod', `${pod?.metadata.name}`, '--grace-period=0', '--force')
    await until('it was replaced', 60, async () => {
      const pods = await apiPods()
      return pods.length === 4 && pods.every(({ metadata }) => metadata.uid !== pod?.metadata.uid)
    })
  })
  console.log(`  killed with no grace: ${failures.length} requests failed`)
  const unexpected = failures.filter(
    ({ at, status }) => ![0, 502, 503, 504].includes(status) || Math.abs(at.getTime() - killedAt) > PROXY_NOTICES_MS,
  )
  expect(unexpected).toEqual([])
})
