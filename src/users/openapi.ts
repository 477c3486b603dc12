import { describeResource } from '../http/openapi.ts'
import { ListQuery, NewUser, UserPatch, userAnswer } from './schemas.ts'

/** What the description of the service says of users. */
export const describeUsers = () =>
  describeResource({
    name: 'user',
    plural: 'users',
    path: '/users',
    query: ListQuery,
    input: NewUser,
    patch: UserPatch,
    item: userAnswer(),
    example: {
      id: 1,
      username: 'Alice',
      email: 'alice@example.com',
      createdAt: '2026-01-02T03:04:05.678Z',
      updatedAt: '2026-01-02T03:04:05.678Z',
    },
    refusals: [
      { outcome: 'conflict', fields: ['username'] },
      { outcome: 'conflict', fields: ['email'] },
    ],
  })
