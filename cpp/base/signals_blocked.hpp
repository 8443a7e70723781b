// Signals belong to the host program's threads.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace pagedcore {

/// Blocks every signal in this thread while it lives. Threads started meanwhile inherit the mask and keep it.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace pagedcore
