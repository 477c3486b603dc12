import { afterAll, beforeAll } from 'vitest'
import { type Api, startApi } from '../../test/api.ts'
import { testResource } from '../../test/resource.ts'

let api: Api
beforeAll(async () => {
  api = await startApi()
})
afterAll(() => api.close())

let count = 0
testResource({
  api: () => api,
  path: '/users',
  member: 'users',
  input() {
    count++
    return { username: `user${count}`, email: `user${count}@example.com` }
  },
  change() {
    count++
    return { username: `changed${count}` }
  },
  invalid: { body: { username: '', email: 'a@example.com' }, pointer: '/username' },
})
