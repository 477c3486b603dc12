import { afterAll, beforeAll, expect, expectTypeOf, test } from 'vitest'
import { type Api, startApi } from '../test/api.ts'
import { createClient } from './client.ts'
import type { User } from './users/schemas.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

test('creates, gets and lists users, and knows the types of its answers', async () => {
  const { users } = createClient(api.url)
  const created = await users.$post({ json: { username: 'Alice', email: 'alice@example.com' } })
  expect(created.status).toBe(201)
  const alice = await created.json()
  expectTypeOf(alice).toEqualTypeOf<User>()
  expect(alice).toMatchObject({ id: expect.any(Number), username: 'Alice', email: 'alice@example.com' })

  const got = await users[':id'].$get({ param: { id: String(alice.id) } })
  const same = await got.json()
  expectTypeOf(same).toEqualTypeOf<User>()
  expect(same).toEqual(alice)

  await users.$post({ json: { username: 'Bob', email: 'bob@example.com' } })
  const listed = await users.$get({ query: { limit: '1' } })
  const page = await listed.json()
  expectTypeOf(page).toEqualTypeOf<{ users: User[]; next: string | null; missing?: number[] }>()
  expect(page).toEqual({ users: [alice], next: expect.any(String) })
  const rest = await (await users.$get({ query: { cursor: page.next as string } })).json()
  expect(rest).toMatchObject({ users: [{ username: 'Bob' }], next: null })
})

test('has types that refuse what the service refuses', async () => {
  const { users } = createClient(api.url)
  // @ts-expect-error: a user has an email.
  expect((await users.$post({ json: { username: 'Carol' } })).status).toBe(422)
  // @ts-expect-error: there is no such filter.
  expect((await users.$get({ query: { age: '7' } })).status).toBe(400)
})
