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
  })
