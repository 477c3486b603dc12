import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, beforeEach, expect, test } from 'vitest'
import {
  allGone,
  apiPods,
  apply,
  get,
  hurry,
  type KubernetesObject,
  kubectl,
  node,
  psql,
  reachable,
  readyApiPods,
  running,
  settled,
  until,
} from './kubectl.ts'
import { startLoad } from './load.ts'

const RATE = 30

type Secret = KubernetesObject & { data: Record<string, string> }
const secret = () => get<Secret>('secret', 'users-db')
const uids = async () => (await apiPods()).map(({ metadata }) => metadata.uid)
const decode = (text = '') => Buffer.from(text, 'base64').toString()

let url: string
beforeAll(async () => {
  await running()
  url = await reachable()
})
beforeEach(allGone)

test('a changed setting rolls the API pods, by the hash in the name of the ConfigMap, and leaves PostgreSQL alone', async () => {
  const [before, database] = [await uids(), await get('pod', 'users-db-0')]
  const load = startLoad({ url, rate: RATE })
  await apply(
    'overlays/gke',
    'configMapGenerator: [{name: users-api, namespace: users, behavior: merge, literals: [LOG_LEVEL=warn, DRAIN_DELAY_MS=4000]}]',
  )
  await hurry()
  await settled()
  await allGone()
  expect((await load.stop('setting changed')).failures).toEqual([])
  expect((await uids()).filter((uid) => before.includes(uid))).toEqual([])
  for (const { metadata } of await readyApiPods()) {
    const script = 'console.log(process.env.LOG_LEVEL, process.env.DRAIN_DELAY_MS)'
    expect(await node(metadata.name, script)).toBe('warn 4000')
  }
  expect((await get('pod', 'users-db-0')).metadata.uid).toBe(database.metadata.uid)
})

test("a new password of the API's role is applied by the next rollout", async () => {
  const data = { password: Buffer.from(`changed-${Date.now()}`).toString('base64') }
  await kubectl('patch', 'secret', 'users-db', `--patch=${JSON.stringify({ data })}`)
  const load = startLoad({ url, rate: RATE })
  await kubectl('rollout', 'restart', 'deployment/users-api')
  await settled()
  await allGone()
  expect((await load.stop('password changed')).failures).toEqual([])
  for (const { metadata } of await readyApiPods()) {
    expect(await node(metadata.name, 'console.log(process.env.DB_PASSWORD)')).toBe(decode(data.password))
  }
})

test('a Secret that is deleted is missed by the next rollout alone, which says what is wrong and stops; what docs/failures.md says mends it', async () => {
  const lost = await secret()
  await kubectl('delete', 'secret', 'users-db')
  const load = startLoad({ url, rate: RATE })
  await sleep(3000)
  await kubectl('rollout', 'restart', 'deployment/users-api')

  const message = await until('a new pod says what is wrong', 120, async () => {
    const migrate = (await apiPods()).flatMap(({ status }) =>
      (status.initContainerStatuses ?? []).filter(({ name }) => name === 'migrate'),
    )
    return migrate.map(({ state, lastState }) => (state.terminated ?? lastState.terminated)?.message).find(Boolean)
  })
  console.log(`  lost Secret: ${message}`)
  expect(message).toMatch(/password/)
  expect(message).toMatch(/Secret/)
  const made = await secret()
  expect(made.data['owner-password']).not.toBe(lost.data['owner-password'])
  expect((await readyApiPods()).length, 'pods that still serve').toBe(4)

  await psql(`alter role postgres password '${decode(made.data['owner-password'])}'`)
  await kubectl('rollout', 'restart', 'deployment/users-api')
  await settled()
  await allGone()
  expect((await load.stop('Secret lost and found')).failures).toEqual([])
})

test("the API's role can change users, and neither tables nor migrations nor roles", async () => {
  const asApi = (sql: string) =>
    kubectl(
      'exec',
      'users-db-0',
      '--',
      'psql',
      '--username=postgres',
      '--dbname=users',
      '-qAt',
      '-v',
      'ON_ERROR_STOP=1',
      '-c',
      'set role users_api',
      '-c',
      sql,
    )
  expect(await asApi('select count(*) >= 0 from users')).toBe('t')
  await asApi('update users set username = username where id = -1; delete from users where id = -1')
  for (const sql of [
    'drop table users',
    'alter table users add column more int',
    'truncate users',
    'create table more (id int)',
    'delete from drizzle.__drizzle_migrations',
    'create role more',
  ]) {
    await expect(asApi(sql), sql).rejects.toThrow(/permission denied|must be owner/)
  }
})
